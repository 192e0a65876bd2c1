//go:build linux

package firecracker

import (
	"context"
	"iter"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/journal"
)

// Watch follows the journal of all processes. It also watches the VMMs of machines that run, so that an end is told also when the process that started them
// is gone.
func (d *driver) Watch(ctx context.Context) (iter.Seq2[microvm.Event, error], error) {
	calling, leave, err := d.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	if err := context.Cause(calling); err != nil {
		return nil, err
	}
	following, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(d.life, func() { cancel(microvm.ErrClosed) })
	events, err := journal.Follow(following, d.state.Journal())
	if err != nil {
		stop()
		cancel(nil)
		return nil, err
	}
	d.adoptAll()
	return func(yield func(microvm.Event, error) bool) {
		defer cancel(nil)
		defer stop()
		for event, err := range events {
			if err == nil && event.Type == microvm.EventStarted {
				d.adopt(event.UID)
			}
			if !yield(event, err) {
				return
			}
		}
	}, nil
}

// adoptAll watches the VMMs of all machines that run.
func (d *driver) adoptAll() {
	uids, err := d.state.UIDs()
	if err != nil {
		d.log.Warn("machines are not watched", "error", err)
	}
	for _, uid := range uids {
		d.adopt(uid)
	}
}

// adopt watches a machine's VMM, if it runs. One that has ended already is settled by whoever looks at it next.
func (d *driver) adopt(uid string) {
	run, err := d.state.ReadRun(uid)
	if err != nil || run == nil || run.Process == nil {
		return
	}
	d.processOf(uid, run)
}
