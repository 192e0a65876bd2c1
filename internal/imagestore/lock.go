//go:build linux

package imagestore

import (
	"context"
	"os"

	"github.com/tangle-network/microvm-runtime/internal/flock"
)

// Lock waits for the right to build or remove the image of a digest, or to change names, among all goroutines and processes of the host. The kernel ends it with the
// process. microvm.ErrBusy when ctx ends first.
func (d Dir) Lock(ctx context.Context, what string) (unlock func(), err error) {
	f, err := flock.Lock(ctx, d.join("locks", hex(what)))
	if err != nil {
		return nil, err
	}
	return func() {
		os.Remove(f.Name()) // who waits for this one notices
		f.Close()
	}, nil
}

// TryLock is Lock for who doesn't wait: microvm.ErrBusy when somebody else has the lock.
func (d Dir) TryLock(what string) (unlock func(), err error) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return d.Lock(ctx, what)
}
