//go:build linux

package main

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestOutputIsWholeOrNotThere: a file is replaced when all is written, and a write that fails leaves what was there, and nothing else.
func TestOutputIsWholeOrNotThere(t *testing.T) {
	dir := t.TempDir()
	path, link := filepath.Join(dir, "file"), filepath.Join(dir, "link")
	if err := os.Symlink("file", link); err != nil {
		t.Fatal(err)
	}
	say := func(text string, err error) func(io.Writer) error {
		return func(w io.Writer) error {
			_, failed := io.WriteString(w, text)
			return errors.Join(failed, err)
		}
	}
	failed := errors.New("failed")
	for _, c := range []struct {
		path, text string
		err        error
		want       string
	}{
		{path, "half", failed, ""}, {path, "one", nil, "one"}, {path, "half", failed, "one"}, {path, "two", nil, "two"}, {link, "three", nil, "three"},
		{os.DevNull, "four", nil, "three"},
	} {
		if err := toOutput(t.Context(), c.path, say(c.text, c.err)); !errors.Is(err, c.err) {
			t.Errorf("%s, %q: %v, want %v", c.path, c.text, err, c.err)
		}
		text, err := os.ReadFile(path)
		if string(text) != c.want || (err != nil) != (c.want == "") {
			t.Errorf("%q, %v, want %q", text, err, c.want)
		}
		info, err := os.Lstat(link)
		if err != nil || info.Mode().Type() != os.ModeSymlink {
			t.Errorf("the link is %v, %v", info, err)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if all, err := os.ReadDir(dir); err != nil || len(all) != 2 {
		t.Errorf("left: %v, %v", all, err)
	}
}

// TestPipesAreLeft when the context ends, though nobody writes to them or reads from them; before, they are pipes.
func TestPipesAreLeft(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	ended := errors.New("ended")
	ctx, end := context.WithCancelCause(t.Context())
	in, out := unlessEnded{ctx, r}, unlessEnded{ctx, w}
	text := make([]byte, 4)
	if _, err := out.Write([]byte("text")); err != nil {
		t.Error(err)
	}
	if n, err := in.Read(text); err != nil || string(text[:n]) != "text" {
		t.Errorf("%q, %v", text[:n], err)
	}
	results := make(chan error, 1)
	go func() {
		_, err := in.Read(text)
		results <- err
	}()
	end(ended)
	select {
	case err := <-results:
		if !errors.Is(err, ended) {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("a read waits on")
	}
}

func TestAge(t *testing.T) {
	for text, want := range map[string]time.Duration{"30d": 30 * 24 * time.Hour, "12h": 12 * time.Hour, "1d": 24 * time.Hour, "90m": 90 * time.Minute, "0d": 0} {
		var got time.Duration
		if err := (age{&got}).Set(text); err != nil || got != want {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "d", "-1d", "1.5d", "30", "soon", "99999999999d"} {
		var got time.Duration
		if err := (age{&got}).Set(text); err == nil {
			t.Errorf("%q is %v", text, got)
		}
	}
}
