//go:build linux

package record

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	microvm "github.com/tangle-network/microvm-runtime"
)

// TestReadWhileReplaced: a reader sees the old one or the new one, also when its file has lost its name since it was opened. One with a second name may be changed by somebody else.
func TestReadWhileReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "record.json")
	if err := Write(path, 1, 0, false); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(done)
		for i := range 2000 {
			if err := Write(path, 1, i, false); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for last, reading := 0, true; reading; {
		select {
		case <-done:
			reading = false
		default:
		}
		var got int
		if err := Read(path, 1, &got); err != nil || got < last {
			t.Errorf("%d after %d, %v", got, last, err)
			break
		}
		last = got
	}
	wg.Wait()
	if err := os.Link(path, path+".other"); err != nil {
		t.Fatal(err)
	}
	if err := Read(path, 1, new(int)); !errors.Is(err, ErrDamaged) {
		t.Error("it has two names:", err)
	}
}

// TestLargeRecord: what can be written can be read.
func TestLargeRecord(t *testing.T) {
	path := filepath.Join(t.TempDir(), "record")
	if err := Write(path, 1, "before", false); err != nil {
		t.Fatal(err)
	}
	const around = 40 // bytes of the envelope
	for _, size := range []int{maxFile - 2*around, maxFile} {
		err := Write(path, 1, strings.Repeat("x", size), false)
		var got string
		if read := Read(path, 1, &got); read != nil || (err == nil) != (len(got) == size) || errors.Is(err, microvm.ErrInvalid) != (size == maxFile) {
			t.Errorf("%d bytes: %v, then %d bytes are read, %v", size, err, len(got), read)
		}
	}
}
