//go:build linux

package firecracker

import (
	"context"
	"errors"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/console"
	"github.com/tangle-network/microvm-runtime/internal/state"
	"github.com/tangle-network/microvm-runtime/internal/vmm"
)

// drainPatience is how long after a VMM's end its console may take to be moved.
const drainPatience = time.Second

// watch is a run that this process watches: it has the VMM's pidfd, and a goroutine that settles the run when the VMM ends.
type watch struct {
	process *vmm.Process
	left    chan struct{} // closed when the run is not to be watched any more
	drained chan struct{} // closed when the VMM has ended and its console is all in the log
}

// watch begins to watch a VMM, until it ends, unwatch, or Close, and takes it over: what it returns is the one that is watched, which is another where somebody was faster. The watch
// of an earlier run ends.
func (d *driver) watch(uid string, process *vmm.Process) (*vmm.Process, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, microvm.ErrClosed
	}
	if w := d.watched[uid]; w != nil {
		if w.process.Identity() == process.Identity() {
			return w.process, process.Close()
		}
		d.leave(uid, w)
		w.process.Close()
	}
	w := &watch{process: process, left: make(chan struct{}), drained: make(chan struct{})}
	d.watched[uid] = w
	d.calls.Go(func() { d.drain(uid, w) })
	d.calls.Go(func() { d.keep(uid, w) })
	d.calls.Go(func() { d.tellDenied(uid, w) })
	return process, nil
}

// leave ends a watch; d.mu is held.
func (d *driver) leave(uid string, w *watch) {
	close(w.left)
	delete(d.watched, uid)
}

// watchOf returns the watch of a run, nil when this process has none.
func (d *driver) watchOf(uid string, run *state.Run) *watch {
	d.mu.Lock()
	defer d.mu.Unlock()
	if w := d.watched[uid]; w != nil && run.Process != nil && w.process.Identity() == *run.Process {
		return w
	}
	return nil
}

// drain moves the console to its log, until the VMM has ended. Where another process drains this one waits for its turn.
func (d *driver) drain(uid string, w *watch) {
	defer close(w.drained)
	draining, stop := context.WithCancel(d.life)
	defer stop()
	defer cancelWhen(stop, w.left)()
	finished := cancelWhen(func() { // another process may hold the console still, for as long as it likes
		select {
		case <-time.After(drainPatience):
			stop()
		case <-draining.Done():
		}
	}, w.process.Done())
	defer finished()
	if err := console.Drain(draining, d.state.Volatile(uid), w.process.Done()); err != nil {
		d.log.Warn("console is lost", "uid", uid, "error", err)
	}
	stop()
}

// keep settles a run when its VMM ends.
func (d *driver) keep(uid string, w *watch) {
	select {
	case <-w.process.Done():
	case <-w.left:
		return
	case <-d.life.Done():
		return
	}
	if err := d.reap(d.life, uid); err != nil && d.life.Err() == nil && !errors.Is(err, microvm.ErrNotFound) {
		d.log.Warn("the end of a machine is not settled", "uid", uid, "error", err)
	}
}

// unwatch forgets a run without closing its process.
func (d *driver) unwatch(uid string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if w := d.watched[uid]; w != nil {
		d.leave(uid, w)
	}
}

// processOf returns the VMM of a run, from now on watched by this process, or vmm.ErrGone. It stays the driver's to close.
func (d *driver) processOf(uid string, run *state.Run) (*vmm.Process, error) {
	if w := d.watchOf(uid, run); w != nil {
		return w.process, nil
	}
	process, err := vmm.Open(*run.Process)
	if err != nil {
		return nil, err
	}
	watched, err := d.watch(uid, process)
	if err != nil {
		return nil, errors.Join(err, process.Close())
	}
	return watched, nil
}

// reap settles the run of a machine whose VMM has ended.
func (d *driver) reap(ctx context.Context, uid string) error {
	_, err := d.peek(ctx, uid)
	return err
}
