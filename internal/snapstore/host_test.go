//go:build linux

package snapstore

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
)

// small makes a store on a file system of a few bytes.
func small(t *testing.T, size string) *Store {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "small")
	if err := errors.Join(os.Mkdir(dir, 0o700), syscall.Mount("microvm-test", dir, "tmpfs", 0, "huge=never,mode=0700,size="+size)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	s, err := Open(filepath.Join(dir, "snapshots"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// fill takes all space but so many bytes.
func fill(t *testing.T, s *Store, leave int) (empty func()) {
	t.Helper()
	path := filepath.Join(filepath.Dir(s.dir), "fill")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	var failed error
	written := int64(0)
	for block := make([]byte, page); failed == nil; written += page {
		_, failed = f.Write(block)
	}
	if err := errors.Join(f.Truncate(max(0, written-int64(leave)-page)), f.Close()); err != nil || !errors.Is(failed, syscall.ENOSPC) {
		t.Fatal(err, failed)
	}
	return func() {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

// TestHostNoSpace at whatever moment: what is there stays whole, what is not is not listed, and all works once there is space.
func TestHostNoSpace(t *testing.T) {
	ring.Host(t)
	from := newStore(t)
	text := export(t, from, exportable(t, from).UID, nil)
	refused := map[string]int{}
	for leave := 0; leave <= 40; leave += 2 {
		s := small(t, "1m")
		below := snapshot(t, s, "vm/below", "", map[int64]byte{1: 'a', 2: 'b'})
		over := snapshot(t, s, "vm/over", below.UID, map[int64]byte{2: 'c'})
		d, m := draft(t, s, "", map[int64]byte{9: 'n'})
		empty := fill(t, s, leave*page)
		names := []string{"vm/below"}
		try := func(what string, err error) bool {
			if err != nil && !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("%s, %d pages are left: %v", what, leave, err)
			}
			if err != nil {
				refused[what]++
			}
			return err == nil
		}
		if _, err := s.Import(t.Context(), bytes.NewReader(text), ImportOptions{Name: "vm/imported", Unsigned: true, Keep: shelf(filepath.Dir(s.dir)).keep}); try("import", err) {
			names = append(names, "vm/imported")
		}
		if try("commit", commit(t.Context(), d, m, "vm/new")) {
			names = append(names, "vm/new")
		}
		try("flatten", s.Flatten(t.Context(), over.UID))
		names = append(names, "vm/over")
		sound(t, s, names...)
		empty()
		if err := s.Flatten(t.Context(), over.UID); err != nil {
			t.Error(err)
		}
		holds(t, s, over.UID, map[int64]byte{1: 'a', 2: 'c'})
	}
	for _, what := range []string{"import", "commit", "flatten"} {
		if refused[what] == 0 || refused[what] > 20 {
			t.Errorf("%s was refused %d times of 21", what, refused[what])
		}
	}
}

// TestHostDeleteWithoutSpace works: it is how one gets some.
func TestHostDeleteWithoutSpace(t *testing.T) {
	ring.Host(t)
	s := small(t, "1m")
	var uids []string
	var last Manifest
	for i := range 3 {
		last = snapshot(t, s, fmt.Sprintf("vm/s%d", i), "", map[int64]byte{1: 'a'})
		uids = append(uids, last.UID)
	}
	fill(t, s, 0)
	if err := s.Check(t.Context(), &last); err != nil {
		t.Error(err)
	}
	if err := s.Verify(t.Context(), uids[2]); err != nil {
		t.Error(err)
	}
	for _, uid := range uids {
		if err := s.Delete(t.Context(), uid, nobody); err != nil {
			t.Error(err)
		}
	}
	nothing(t, s)
}
