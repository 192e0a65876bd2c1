//go:build linux

// Package journal is the list of what happened to machines, which every process of the host appends to and any may follow.
//
// There are only two functions: [Append] and [Follow]. An entry is one line of JSON, written with one call, so lines of several processes
// never mix. A file that has grown to a MiB is renamed to .1, the one before to .2, and so on; followers read them to their ends in that order.
//
// # Caveats
//
// Eight old files are kept. A follower that is slower than that is told [ErrLost], and goes on with what is there.
//
// The journal lives on tmpfs: it begins anew with every boot of the host. It is for followers, not for the truth, which is in the records.
package journal

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"strconv"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/flock"
)

const (
	maxSize = 1 << 20
	keptOld = 8
)

// ErrLost is told to a follower that was too slow.
var ErrLost = errors.New("events were lost: the follower was too slow")

// Append adds one event to the journal at path. It waits for others that do until ctx ends.
func Append(ctx context.Context, path string, event microvm.Event) error {
	line, err := json.Marshal(event)
	if err != nil {
		return err
	}
	f, err := flock.Lock(ctx, path) // so that nobody renames it meanwhile
	if err != nil {
		return err
	}
	_, err = f.Write(append(line, '\n'))
	return errors.Join(err, rotate(f, path), f.Close())
}

// rotate renames a journal that is full, and those before it; its writer still holds the lock.
func rotate(f *os.File, path string) error {
	info, err := f.Stat()
	if err != nil || info.Size() < maxSize {
		return err
	}
	for n := keptOld; n > 0; n-- {
		if err := os.Rename(numbered(path, n-1), numbered(path, n)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// numbered returns the name of the nth old journal; the 0th is the present one.
func numbered(path string, n int) string {
	if n == 0 {
		return path
	}
	return path + "." + strconv.Itoa(n)
}
