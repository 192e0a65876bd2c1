//go:build linux

package firecracker

import (
	"context"
	"errors"
	"os"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/state"
	"github.com/tangle-network/microvm-runtime/internal/step"
	"github.com/tangle-network/microvm-runtime/internal/vmm"
)

// Destroy ends a machine and removes all that it had. Once it is recorded that it goes it can only go on: an interrupted Destroy is finished by the next.
func (d *driver) Destroy(ctx context.Context, uid string) error {
	ctx, leave, err := d.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	lock, err := d.state.Lock(ctx, uid)
	if err != nil {
		return err
	}
	defer lock.Unlock()
	record, err := d.state.ReadRecord(uid)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err // a damaged or newer record says nothing reliable about what to remove
	}
	record.UID = uid
	name, err := d.state.NameOf(uid)
	if err != nil {
		return err
	}
	return d.destroy(lock, &record, name)
}

func (d *driver) destroy(lock *state.Lock, record *state.Record, name string) error {
	steps := step.Begin("destroy", d.options.hook)
	record.Phase = state.PhaseDestroying
	if err := steps.Do("record", func() error { return lock.WriteRecord(*record) }, nil); err != nil {
		return err
	}
	if err := steps.Do("vmm", func() error { return d.endRun(lock, record, name) }, nil); err != nil {
		return err
	}
	if err := steps.Do("cgroup", func() error { return d.endLeaf(record.UID) }, nil); err != nil {
		return err
	}
	if err := steps.Do("place", d.place(record).remove, nil); err != nil {
		return err
	}
	if err := steps.Do("slot", func() error { return d.slots.Release(record.UID) }, nil); err != nil {
		return err
	}
	if err := steps.Do("name", lock.Unbind, nil); err != nil {
		return err
	}
	if err := steps.Do("remove", lock.Remove, nil); err != nil {
		return err
	}
	d.tell(record, name, microvm.EventDestroyed, nil)
	return nil
}

// endRun kills the machine's VMM, if it has one.
func (d *driver) endRun(lock *state.Lock, record *state.Record, name string) error {
	run, err := d.state.ReadRun(record.UID)
	if err != nil || run == nil {
		return err
	}
	if !run.Committed {
		return d.undoStart(lock, record, run)
	}
	process, err := d.find(record.UID, run)
	if err == nil {
		if err := d.intend(lock, run, microvm.ReasonForced); err != nil {
			return err
		}
		if err := d.kill(record.UID, process); err != nil {
			return err
		}
	} else if !errors.Is(err, vmm.ErrGone) {
		return err
	}
	_, err = d.settle(lock, record, run, name)
	return err
}
