//go:build linux

package firecracker

import (
	"context"
	"errors"
	"os"
	"syscall"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/state"
	"github.com/tangle-network/microvm-runtime/internal/step"
	"github.com/tangle-network/microvm-runtime/internal/vmm"
)

// Destroy ends a machine and removes all that it had. Once it is recorded that it goes it can only go on: an interrupted Destroy is finished by the next.
//
// All that a machine has is named after its uid. So one whose record is damaged can be destroyed; one of a newer version may have more than this program knows of.
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
	if errors.Is(err, state.ErrDamaged) || errors.Is(err, os.ErrNotExist) {
		record, err = state.Record{Created: time.Now()}, nil
	}
	if err != nil {
		return err
	}
	record.UID = uid
	name, err := d.state.NameOf(uid)
	if err != nil {
		return err
	}
	if err := d.canEnd(uid); err != nil {
		return err
	}
	return d.destroy(ctx, lock, &record, name)
}

func (d *driver) destroy(ctx context.Context, lock *state.Lock, record *state.Record, name string) error {
	steps := step.Begin("destroy", d.options.hook)
	record.Phase = state.PhaseDestroying
	if err := steps.Do("record", func() error { return recordEnd(lock, record) }, nil); err != nil {
		return err
	}
	if err := steps.Do("vmm", func() error { return d.endRun(lock, record, name) }, nil); err != nil {
		return err
	}
	if err := steps.Do("cgroup", func() error { return errors.Join(d.endPager(record.UID), d.endLeaf(record.UID)) }, nil); err != nil {
		return err
	}
	if err := steps.Do("place", func() error { return d.removePlaces(record) }, nil); err != nil {
		return err
	}
	if err := steps.Do("network", func() error { return d.returnNetwork(ctx, record.UID) }, nil); err != nil {
		return err
	}
	if err := steps.Do("ports", func() error { return d.ports.Return(ctx, record.UID) }, nil); err != nil {
		return err
	}
	if err := steps.Do("drives", func() error { return d.returnDrives(record.UID) }, nil); err != nil {
		return err
	}
	if err := steps.Do("slot", func() error { return d.slots.Release(ctx, record.UID) }, nil); err != nil {
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

// canEnd says whether the machine's VMM, if it has one, can be reached.
func (d *driver) canEnd(uid string) error {
	run, err := d.state.ReadRun(uid)
	if err != nil || run == nil || run.Process == nil { // which its end copes with
		return nil
	}
	if err = d.alive(uid, run); errors.Is(err, vmm.ErrGone) || errors.Is(err, vmm.ErrMoved) {
		return nil
	}
	return reachable(err)
}

// recordEnd records that the machine goes. Where there is no space for that no record says it too, and destroying is what makes space.
func recordEnd(lock *state.Lock, record *state.Record) error {
	err := lock.WriteRecord(*record)
	if full(err) {
		return lock.RemoveRecord()
	}
	return err
}

func full(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }

// removePlaces removes the place of a machine whose record may not say whether it is jailed.
func (d *driver) removePlaces(record *state.Record) error {
	jailed, bare := *record, *record
	jailed.Jailed, bare.Jailed = true, false
	return errors.Join(d.place(&jailed).remove(), d.place(&bare).remove())
}

// endRun kills the machine's VMM, if it has one. How it ended is not for long, so that it can't be recorded is no error.
func (d *driver) endRun(lock *state.Lock, record *state.Record, name string) error {
	run, err := d.state.ReadRun(record.UID)
	if errors.Is(err, state.ErrDamaged) {
		return d.endUnknown(record.UID)
	}
	if err != nil {
		return err
	}
	if run == nil {
		return d.endLost(record.UID)
	}
	if !run.Committed {
		return d.undoStart(lock, record, run)
	}
	process, err := d.findToEnd(record.UID, run)
	if err == nil {
		if err := d.intend(lock, run, microvm.ReasonForced); err != nil && !full(err) {
			return err
		}
		if err := d.kill(record.UID, process); err != nil {
			return err
		}
	} else if !errors.Is(err, vmm.ErrGone) {
		return err
	}
	if _, err = d.settle(lock, record, run, name); full(err) {
		d.forget(record.UID)
		return nil
	}
	return err
}

// endUnknown kills the VMM of a run whose record is damaged.
func (d *driver) endUnknown(uid string) error {
	d.mu.Lock()
	w := d.watched[uid]
	d.mu.Unlock()
	if w == nil {
		return d.endStrays(uid)
	}
	defer d.forget(uid)
	return d.kill(uid, w.process)
}
