//go:build linux

package store

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
)

// makeFile makes a file under a key, with the key as its content.
func makeFile(t *testing.T, s *Store, key string) File {
	t.Helper()
	file, err := s.Make(t.Context(), key, func(temp string) error { return os.WriteFile(temp, []byte(key), 0o600) })
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// TestCollect: what is needed stays, and what is not ours; the rest goes, and is made again when it is asked for.
func TestCollect(t *testing.T) {
	s := newStore(t)
	needed, one, two := makeFile(t, s, "needed"), makeFile(t, s, "one"), makeFile(t, s, "two")
	linked, foreign, half := filepath.Join(t.TempDir(), "linked"), filepath.Join(s.dir, "files", "foreign"), filepath.Join(s.dir, "making", digest("half"))
	if err := errors.Join(os.Link(one.Path, linked), os.WriteFile(foreign, nil, 0o600), os.WriteFile(half, nil, 0o600), os.WriteFile(half+lockSuffix, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	ask := func() (map[string]bool, error) { return map[string]bool{needed.Key: true}, nil }
	for _, want := range [][]File{{one, two}, nil} {
		removed, err := s.Collect(t.Context(), ask)
		for _, files := range [][]File{removed, want} {
			slices.SortFunc(files, func(a, b File) int { return strings.Compare(a.Key, b.Key) })
		}
		if err != nil || !slices.Equal(removed, want) {
			t.Errorf("removed %+v, %v, want %+v", removed, err, want)
		}
	}
	for path, stays := range map[string]bool{needed.Path: true, foreign: true, linked: true, one.Path: false, two.Path: false, half: false, half + lockSuffix: false} {
		if _, err := os.Lstat(path); (err == nil) != stays {
			t.Errorf("%s: %v, want that it stays: %t", path, err, stays)
		}
	}
	if again := makeFile(t, s, "one"); again != one {
		t.Errorf("again %+v, was %+v", again, one)
	}
	boom := errors.New("boom")
	if removed, err := s.Collect(t.Context(), func() (map[string]bool, error) { return nil, boom }); !errors.Is(err, boom) || len(removed) > 0 {
		t.Errorf("without knowing what is needed: %+v, %v", removed, err)
	}
}

// TestCollectWaits for who holds the store, and who wants to hold it waits for that.
func TestCollectWaits(t *testing.T) {
	s := newStore(t)
	makeFile(t, s, "one")
	soon := func() context.Context {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		t.Cleanup(cancel)
		return ctx
	}
	nothing := func() (map[string]bool, error) {
		if release, err := s.Hold(soon()); !errors.Is(err, microvm.ErrBusy) {
			t.Errorf("hold while files are collected: %v", err)
			release()
		}
		return nil, nil
	}
	one, err1 := s.Hold(t.Context())
	two, err2 := s.Hold(t.Context())
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	for _, release := range []func(){one, two} {
		if removed, err := s.Collect(soon(), nothing); !errors.Is(err, microvm.ErrBusy) || len(removed) > 0 {
			t.Errorf("while it is held: %+v, %v", removed, err)
		}
		release()
	}
	if removed, err := s.Collect(t.Context(), nothing); err != nil || len(removed) != 1 {
		t.Errorf("%+v, %v", removed, err)
	}
}
