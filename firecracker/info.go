//go:build linux

package firecracker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/state"
	"github.com/tangle-network/microvm-runtime/internal/vmm"
)

// reapPatience is how long a reader waits for the lock of a machine whose VMM has ended and is not settled yet.
const reapPatience = 100 * time.Millisecond

// settlePatience is how long a reader waits for a machine to be settled that he has the lock of.
const settlePatience = 2 * time.Second

// Resolve finds a machine by name, else by uid.
func (d *driver) Resolve(ctx context.Context, ref string) (string, error) {
	ctx, leave, err := d.enter(ctx)
	if err != nil {
		return "", err
	}
	defer leave()
	if err := context.Cause(ctx); err != nil {
		return "", err
	}
	return d.state.Lookup(ref)
}

// Info reads the records, without the machine's lock.
func (d *driver) Info(ctx context.Context, uid string) (microvm.Info, error) {
	ctx, leave, err := d.enter(ctx)
	if err != nil {
		return microvm.Info{}, err
	}
	defer leave()
	if err := context.Cause(ctx); err != nil {
		return microvm.Info{}, err
	}
	name, err := d.state.NameOf(uid)
	if err != nil {
		return microvm.Info{}, err
	}
	return d.info(ctx, uid, name)
}

// List reads the records of all machines.
func (d *driver) List(ctx context.Context) ([]microvm.Info, error) {
	ctx, leave, err := d.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	uids, err := d.state.UIDs()
	if err != nil {
		return nil, err
	}
	names, err := d.state.Names()
	if err != nil {
		return nil, err
	}
	infos := make([]microvm.Info, 0, len(uids))
	for _, uid := range uids {
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		name := names[uid]
		if name == "" && d.waits(uid) {
			continue
		}
		if name == "" { // it may be renamed just now
			if name, err = d.state.NameOf(uid); err != nil {
				return nil, err
			}
		}
		info, err := d.info(ctx, uid, name)
		if errors.Is(err, microvm.ErrNotFound) { // destroyed meanwhile
			continue
		}
		if err != nil {
			return nil, err
		}
		infos = append(infos, info)
	}
	slices.SortFunc(infos, func(a, b microvm.Info) int {
		return strings.Compare(a.Name+"\x00"+a.UID, b.Name+"\x00"+b.UID)
	})
	return infos, nil
}

// info derives a machine's Info from its records. A run that has ended is settled on the way, if its lock is free; that it can't be is the machine's problem, and nobody else's. An error is
// the context's, or says that the machine is gone.
func (d *driver) info(ctx context.Context, uid, name string) (microvm.Info, error) {
	info, ended, err := d.look(uid, name)
	if err != nil || !ended {
		return info, err
	}
	d.yieldToStarter(ctx, uid)
	unsettled := d.reapSoon(ctx, uid)
	if err := context.Cause(ctx); err != nil {
		return info, err
	}
	settled, ended, err := d.look(uid, name)
	if !ended {
		return settled, err
	}
	if !errors.Is(unsettled, context.DeadlineExceeded) && unsettled != nil { // else somebody holds the lock and is about to settle it
		info.Problem = fmt.Sprintf("its run has ended and can't be settled: %v", unsettled)
	}
	return info, nil
}

// reapSoon is reap for who does not want to wait for a machine's lock, nor for a disk to which what its guest wrote is flushed. That goes on behind.
func (d *driver) reapSoon(ctx context.Context, uid string) error {
	patient, cancel := context.WithTimeout(ctx, reapPatience)
	reaped := make(chan error, 1)
	d.calls.Go(func() {
		defer cancel()
		reaped <- d.reap(patient, uid)
	})
	select {
	case err := <-reaped:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(settlePatience):
		return context.DeadlineExceeded
	}
}

// look reads a machine's records. It says whether the run in them has ended, or is to end whatever comes, without being settled.
func (d *driver) look(uid, name string) (info microvm.Info, ended bool, err error) {
	info = microvm.Info{UID: uid, Name: name}
	record, err := d.state.ReadRecord(uid)
	switch {
	case errors.Is(err, os.ErrNotExist):
		if _, err := os.Lstat(d.state.Machine(uid)); err == nil { // being made, or, when it has a name, destroyed
			info.State = microvm.StateCreating
			if name != "" {
				info.State = microvm.StateDestroying
			}
			return info, false, nil
		}
		return info, false, fmt.Errorf("%s: %w", uid, microvm.ErrNotFound)
	case err != nil:
		info.State, info.Problem = microvm.StateDamaged, err.Error()
		return info, false, nil
	}
	run, err := d.state.ReadRun(uid)
	if err != nil {
		info.State, info.Problem = microvm.StateDamaged, err.Error()
		return info, false, nil
	}
	info.Created, info.Spec, info.Image, info.Agent, info.Jailed, info.Network = record.Created, record.Spec, record.Image, record.Agent, record.Jailed, networkInfo(&record)
	info.Started, _ = d.state.Begun(uid)
	info.Copied = record.Copied
	if run != nil && !run.Committed { // a start goes on, or was interrupted: the machine is still what it was before
		run = nil
	}
	if run != nil {
		ended = d.lookAtRun(&info, &record, run)
		return info, ended, nil
	}
	if info.Exit, err = d.lastExit(uid, nil); errors.Is(err, errStarted) {
		return d.look(uid, name)
	} else if err != nil {
		info.State, info.Problem = microvm.StateDamaged, err.Error()
		return info, false, nil
	}
	info.State = stateOf(&record, nil, info.Exit)
	return info, false, nil
}

// lookAtRun is look for a machine with a run. Where nothing can be told of its VMM, the records' word stands.
func (d *driver) lookAtRun(info *microvm.Info, record *state.Record, run *state.Run) (ended bool) {
	info.Timeline, info.Held = run.Timeline, run.Held
	err := d.alive(record.UID, run)
	if errors.Is(err, vmm.ErrGone) {
		info.State = stateOf(record, &state.Run{State: microvm.StateStopped}, nil)
		return true
	}
	if err != nil {
		info.Problem = err.Error()
	}
	info.State, info.PID = stateOf(record, run, nil), run.Process.PID
	return forced(run)
}

// alive looks at the VMM of a run and begins nothing: a list of a thousand machines is no reason to watch them all. It answers nil, vmm.ErrGone, or why that can't be told.
func (d *driver) alive(uid string, run *state.Run) error {
	w := d.watchOf(uid, run)
	if w == nil {
		return d.lookWide(uid, vmm.Find(*run.Process))
	}
	select {
	case <-w.process.Done():
		return vmm.ErrGone
	default:
		return nil
	}
}

// running returns the record of a machine that runs or is paused, without its lock.
func (d *driver) running(uid, verb string) (*state.Record, error) {
	record, err := d.state.ReadRecord(uid)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", uid, microvm.ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	run, err := d.state.ReadRun(uid)
	if err != nil {
		return nil, err
	}
	if run == nil || !run.Committed {
		exit, _ := d.lastExit(uid, nil)
		return nil, stateError(verb, stateOf(&record, nil, exit))
	}
	return &record, nil
}
