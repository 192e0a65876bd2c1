//go:build linux

package pager

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/unix"
)

func TestWorkingSet(t *testing.T) {
	path := filepath.Join(t.TempDir(), "set")
	for _, want := range [][]uint32{{7}, {5, 1 << 31, 0, 5}} {
		must(t, writeSet(path, 4096, want))
		if got, err := readSet(path, 4096); err != nil || !slices.Equal(got, want) {
			t.Errorf("%d, %v, want %d", got, err, want)
		}
	}
	if _, err := readSet(path, hugePage); !errors.Is(err, microvm.ErrInvalid) {
		t.Errorf("of other pages: %v", err)
	}
	good, err := os.ReadFile(path)
	must(t, err)
	damaged := [][]byte{nil, good[:10], good[:len(good)-1], append(bytes.Clone(good), 0)}
	for at := range good {
		b := bytes.Clone(good)
		b[at] ^= 1
		damaged = append(damaged, b)
	}
	for _, b := range damaged {
		must(t, os.WriteFile(path, b, 0o600))
		if got, err := readSet(path, 4096); !errors.Is(err, microvm.ErrInvalid) {
			t.Errorf("%x is read as %d, %v", b, got, err)
		}
	}
}

func TestRecordingIsBoundedAndStopsOnce(t *testing.T) {
	r := recording{on: true}
	for n := range uint64(maxRecorded + 10) {
		r.add(n)
	}
	r.add(1 << 40)
	if pages, ok := r.stop(); !ok || len(pages) != maxRecorded || pages[5] != 5 {
		t.Errorf("%d pages, %t", len(pages), ok)
	}
	r.add(1)
	if pages, ok := r.stop(); ok || len(pages) > 0 {
		t.Errorf("once more: %d pages, %t", len(pages), ok)
	}
}

func TestRunsOf(t *testing.T) {
	if got, want := runsOf([]uint32{9, 3, 2, 9, 4, 7}, 4096), []run{{2 * 4096, 3 * 4096}, {7 * 4096, 4096}, {9 * 4096, 4096}}; !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	var all []uint32
	for n := range uint32(2000) {
		all = append(all, 5000-n)
	}
	var pages uint64
	runs := runsOf(all, 4096)
	for _, r := range runs {
		pages += r.length / 4096
		if r.length > runBytes {
			t.Errorf("%+v is too long", r)
		}
	}
	if first := runs[0].offset / 4096; pages != 2000 || first < 3900 { // those that come first in the order come first
		t.Errorf("%d pages, the first is %d", pages, first)
	}
	if got, want := runsOf([]uint32{4, 3}, hugePage), []run{{3 * hugePage, hugePage}, {4 * hugePage, hugePage}}; !reflect.DeepEqual(got, want) {
		t.Errorf("huge: %v, want %v", got, want)
	}
}

// TestWorkingSetOfMany is written by several at once, of whom one was killed before: a reader sees one or the other, whole.
func TestWorkingSetOfMany(t *testing.T) {
	path := filepath.Join(t.TempDir(), "set")
	must(t, writeSet(path, 4096, []uint32{1}), os.WriteFile(path+".new", bytes.Repeat([]byte("x"), 1<<20), 0o600))
	var writing sync.WaitGroup
	for n := range uint32(4) {
		writing.Go(func() {
			for range 20 {
				if err := writeSet(path, 4096, slices.Repeat([]uint32{n}, 1000*int(n+1))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	written := make(chan struct{})
	go func() { defer close(written); writing.Wait() }()
	for {
		if pages, err := readSet(path, 4096); err != nil || len(pages) > 1 && len(pages) != 1000*int(pages[0]+1) {
			t.Fatalf("%d pages, %v", len(pages), err)
		}
		select {
		case <-written:
			if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 1 {
				t.Errorf("%v are left, %v", left, err)
			}
			return
		default:
		}
	}
}

func TestRenewed(t *testing.T) {
	for _, c := range []struct{ set, asked, want []uint32 }{
		{[]uint32{5, 3}, nil, nil},
		{[]uint32{5, 3}, []uint32{3, 9, 5, 1}, nil},
		{[]uint32{5, 3}, []uint32{3, 9, 5, 1, 2}, []uint32{5, 3, 9, 1, 2}},
	} {
		if got := renewed(c.set, c.asked); !slices.Equal(got, c.want) {
			t.Errorf("%d and %d: %d, want %d", c.set, c.asked, got, c.want)
		}
	}
	var set, asked []uint32
	for n := range uint32(maxRecorded) {
		set, asked = append(set, 2*n), append(asked, 2*n+1)
	}
	if got := renewed(set[:maxRecorded/2], asked); len(got) != maxRecorded {
		t.Errorf("%d pages", len(got))
	}
}

func TestHostReadAhead(t *testing.T) {
	const pages = 4096
	dir := t.TempDir()
	path, set := memoryFile(t, pages), filepath.Join(dir, "set")
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	cached := func() int {
		t.Helper()
		n, err := unix.Cached(f, 0, pages*4096)
		must(t, err)
		return n
	}
	must(t, f.Sync(), unix.DropCache(f))
	if cached() > 0 {
		t.Skip("the file system keeps what is dropped: it is in memory")
	}
	if _, err := ReadAhead(t.Context(), set, path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a set: %v", err)
	}
	var want []uint32
	for n := uint32(0); n < pages; n += 64 {
		want = append(want, n, n+1)
	}
	must(t, writeSet(set, 4096, append(want, pages)))
	if _, err := ReadAhead(t.Context(), set, path); !errors.Is(err, microvm.ErrInvalid) || cached() > 0 {
		t.Errorf("a set of another memory: %v, %d pages are read", err, cached())
	}
	must(t, writeSet(set, 4096, want))
	left, cancel := context.WithCancel(t.Context())
	cancel()
	if n, err := ReadAhead(left, set, path); n != 0 || !errors.Is(err, context.Canceled) {
		t.Errorf("%d bytes, %v", n, err)
	}
	if n, err := ReadAhead(t.Context(), set, path); n != uint64(len(want))*4096 || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	waitFor(t, "the pages", func() bool { return cached() >= len(want) })
	if n := cached(); n == pages {
		t.Error("all of it is read")
	}
	must(t, writeSet(set, hugePage, []uint32{0}))
	if n, err := ReadAhead(t.Context(), set, path); n != hugePage || err != nil {
		t.Errorf("huge: %d bytes, %v", n, err)
	}
}

// TestRecordingWaitsForWhatIsKnown: a VM may end while its working set is still being read, and must not replace it with the part that it has asked for.
func TestRecordingWaitsForWhatIsKnown(t *testing.T) {
	for asked, want := range map[uint32][]uint32{9: nil, 20: {9, 4, 20, 21, 22}} {
		r := recording{on: true}
		r.learn()
		for n := range uint32(3) {
			r.add(uint64(asked + n))
		}
		stopped := make(chan []uint32)
		go func() {
			pages, _ := r.stop()
			stopped <- pages
		}()
		select {
		case pages := <-stopped:
			t.Errorf("not waited for: %d", pages)
		case <-time.After(20 * time.Millisecond):
			r.know([]uint32{9, 4})
			if pages := <-stopped; !slices.Equal(pages, want) {
				t.Errorf("%d, want %d", pages, want)
			}
		}
	}
}
