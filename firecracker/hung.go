//go:build linux

package firecracker

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/firecracker/api"
	"github.com/tangle-network/microvm-runtime/internal/state"
)

// errHangs is a VMM that waits for itself: its guest ended while a request came, so that its main thread waits for the API's thread, and that for an answer of the main thread's, for
// ever. Its log says that it stops. Firecracker 1.12.1 does so; its end is nobody's loss.
var errHangs = errors.New("the VMM hung over its guest's end")

// hangPatience is how long a VMM may take that stops: one that doesn't hang needs milliseconds.
const hangPatience = 500 * time.Millisecond

// stopsIn says whether a VMM's log says that it stops, and not that it has come to the end of that.
func stopsIn(log string) bool {
	return strings.Contains(log, stopping) && !strings.Contains(log, "exit_code=")
}

// unlessHung calls f, which waits for a machine's VMM, with a context that ends when the VMM hangs. Such a VMM is ended, and errHangs the error: the machine has run.
func (d *driver) unlessHung(ctx context.Context, record *state.Record, f func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	look := time.AfterFunc(hangPatience, func() { d.watchForHang(ctx, cancel, record) })
	defer look.Stop()
	err := f(ctx)
	if !errors.Is(context.Cause(ctx), errHangs) {
		return err
	}
	return errors.Join(errHangs, d.endWatched(record.UID))
}

// watchForHang calls found when the VMM stops and does not come to an end, until the context ends.
func (d *driver) watchForHang(ctx context.Context, found func(error), record *state.Record) {
	for stopped := false; ; {
		stops := stopsIn(d.vmmLog(record))
		if stops && stopped {
			found(errHangs)
			return
		}
		stopped = stops
		select {
		case <-time.After(hangPatience):
		case <-ctx.Done():
			return
		}
	}
}

// endWatched kills the VMM that this process watches of a machine.
func (d *driver) endWatched(uid string) error {
	d.mu.Lock()
	w := d.watched[uid]
	d.mu.Unlock()
	if w == nil { // somebody was faster
		return nil
	}
	return d.kill(uid, w.process)
}

// unlessEnded makes of a verb's error that the VMM did not answer because it ended meanwhile, or hung, microvm.ErrExited, with the run settled.
func (d *driver) unlessEnded(lock *state.Lock, m *machine, err error) error {
	if m.process == nil || !errors.Is(err, errHangs) && !errors.Is(err, api.ErrGone) {
		return err
	}
	select {
	case <-m.process.Done():
	case <-time.After(lastBreath):
		return err
	}
	if !d.startersToSettle(m.record.UID) {
		if _, failed := d.settle(lock, &m.record, m.run, m.name); failed != nil {
			return errors.Join(err, failed)
		}
	}
	return fmt.Errorf("%w: %w", microvm.ErrExited, err)
}
