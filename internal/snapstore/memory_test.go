//go:build linux

package snapstore

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/disk"
)

// holds fails the test unless a snapshot's whole memory has these pages, and else zeros, and as few bytes of disk.
func holds(t *testing.T, s *Store, uid string, pages map[int64]byte) {
	t.Helper()
	m, err := s.Read(uid)
	if err != nil {
		t.Fatal(err)
	}
	path, err := s.Memory(t.Context(), &m)
	if err != nil {
		t.Fatal(err)
	}
	want := filepath.Join(t.TempDir(), "want")
	sparse(t, want, memoryPages, pages)
	same(t, path, want)
	if used, needed := disk.Used(path), disk.Used(want); used > needed+64<<10 {
		t.Errorf("%s has %d bytes on disk, %d are data", path, used, needed)
	}
}

func same(t *testing.T, one, other string) {
	t.Helper()
	a, err := os.ReadFile(one)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(other); err != nil || !bytes.Equal(a, b) {
		t.Errorf("%s and %s differ: %v", one, other, err)
	}
}

// TestMemoryOfDiffs is what a full snapshot of that moment would have: the last that was written to each page, zeros too.
func TestMemoryOfDiffs(t *testing.T) {
	s := newStore(t)
	now := random(200)
	uids := []string{snapshot(t, s, "vm/s0", "", now).UID}
	states := []map[int64]byte{maps.Clone(now)}
	for i := range 4 {
		written := random(50)
		written[int64(i)] = 0 // a page of zeros that was written is no hole
		maps.Copy(now, written)
		uids = append(uids, snapshot(t, s, fmt.Sprintf("vm/s%d", i+1), uids[i], written).UID)
		states = append(states, maps.Clone(now))
	}
	for i, uid := range slices.Backward(uids) {
		holds(t, s, uid, states[i])
	}
	if err := s.Flatten(t.Context(), uids[2]); err != nil {
		t.Fatal(err)
	}
	for i := range 2 { // in the order in which they are not needed
		if err := s.Delete(t.Context(), uids[1-i], nobody); err != nil {
			t.Error(err)
		}
	}
	for i := 2; i < len(uids); i++ {
		holds(t, s, uids[i], states[i])
		if err := s.Verify(t.Context(), uids[i]); err != nil {
			t.Error(err)
		}
	}
	if m, err := s.Read(uids[2]); err != nil || m.Kind != microvm.SnapshotFull || m.Parent != "" {
		t.Errorf("%+v, %v", m, err)
	}
}

// TestMemoryIsMadeOnce for all who ask at once.
func TestMemoryIsMadeOnce(t *testing.T) {
	s := newStore(t)
	below := snapshot(t, s, "vm/below", "", random(100))
	over := snapshot(t, s, "vm/over", below.UID, random(100))
	var wg sync.WaitGroup
	inodes := make([]os.FileInfo, 8)
	for i := range inodes {
		wg.Go(func() {
			path, err := s.Memory(t.Context(), &over)
			if err == nil {
				inodes[i], err = os.Stat(path)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, info := range inodes {
		if info == nil || !os.SameFile(info, inodes[0]) || info.Mode() != 0o444 {
			t.Fatal("several were made, or one that can be written to")
		}
	}
}

// TestFlattenWhileUsed: who restores, verifies and flattens meet no file that is gone.
func TestFlattenWhileUsed(t *testing.T) {
	s := newStore(t)
	below := snapshot(t, s, "vm/below", "", random(20))
	for i := range 20 {
		over := snapshot(t, s, fmt.Sprintf("vm/over%d", i), below.UID, random(20))
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				if err := s.Flatten(t.Context(), over.UID); err != nil {
					t.Error(err)
				}
			})
			wg.Go(func() {
				if err := s.Verify(t.Context(), over.UID); err != nil {
					t.Error(err)
				}
			})
			wg.Go(func() {
				hold, m, err := s.Hold(t.Context(), over.UID)
				if err != nil {
					t.Error(err)
					return
				}
				defer hold.Release()
				if _, err := s.Memory(t.Context(), &m); err != nil {
					t.Error(err)
				}
				if _, err := os.Stat(s.Path(&m, Memory)); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	}
}

// flip changes a byte of a file, and leaves its times as they are.
func flip(t *testing.T, path string, at int64) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Skip("this user can't write to it")
	}
	b := make([]byte, 1)
	_, err = f.ReadAt(b, at)
	b[0] ^= 0x10
	_, failed := f.WriteAt(b, at)
	if err := errors.Join(err, failed, f.Close(), os.Chtimes(path, info.ModTime(), info.ModTime())); err != nil {
		t.Fatal(err)
	}
}

// TestVerifyFindsAByte, of each file of a chain, and says which file it is in.
func TestVerifyFindsAByte(t *testing.T) {
	s := newStore(t)
	below := snapshot(t, s, "vm/below", "", map[int64]byte{1: 'a'})
	over := snapshot(t, s, "vm/over", below.UID, map[int64]byte{2: 'b'})
	holds(t, s, over.UID, map[int64]byte{1: 'a', 2: 'b'})
	for path, at := range map[string]int64{
		s.Path(&over, State): 7, s.Path(&over, Memory): 2*page + 1, s.Path(&over, Disk): 0, s.file(over.UID, flat): 1*page + 3, s.Path(&below, State): 0, s.Path(&below, Memory): 100 * page, s.Path(&below, Disk): 3 * page,
	} {
		flip(t, path, at)
		err := s.Verify(t.Context(), over.UID)
		if !errors.Is(err, microvm.ErrIncompatible) || !strings.Contains(err.Error(), filepath.Base(path)) || !strings.Contains(err.Error(), filepath.Base(filepath.Dir(path))) && !strings.Contains(err.Error(), "vm/") {
			t.Errorf("%s: %v", path, err)
		}
		if err := s.Flatten(t.Context(), over.UID); !errors.Is(err, microvm.ErrIncompatible) {
			t.Errorf("%s: flattened: %v", path, err)
		}
		flip(t, path, at)
		if err := s.Verify(t.Context(), over.UID); err != nil {
			t.Errorf("%s is as it was: %v", path, err)
		}
	}
}

// TestCheckReadsOnce in a boot: links don't make it read again, another content, time or boot does.
func TestCheckReadsOnce(t *testing.T) {
	s := newStore(t)
	m := snapshot(t, s, "vm/warm", "", map[int64]byte{1: 'a'})
	path := s.Path(&m, Memory)
	flip(t, path, 0) // what only a reader notices
	if err := os.Link(path, filepath.Join(filepath.Dir(s.dir), "link")); err != nil {
		t.Fatal(err)
	}
	if err := s.Check(t.Context(), &m); err != nil {
		t.Error("it was read:", err)
	}
	later := *s
	later.bootID = "another"
	if err := later.Check(t.Context(), &m); !errors.Is(err, microvm.ErrIncompatible) {
		t.Error("after a reboot it was not read:", err)
	}
	flip(t, path, 0)
	if err := later.Check(t.Context(), &m); err != nil {
		t.Error(err)
	}
	if err := os.Truncate(path, 5); err != nil {
		t.Skip("this user can't write to it")
	}
	if err := later.Check(t.Context(), &m); !errors.Is(err, microvm.ErrIncompatible) {
		t.Error(err)
	}
}
