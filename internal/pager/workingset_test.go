//go:build linux

package pager

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	microvm "github.com/tangle-network/microvm-runtime"
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
