//go:build linux

package firecracker

import (
	"errors"
	"fmt"
	"os"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/state"
	"github.com/tangle-network/microvm-runtime/internal/vmm"
)

// machine is what is known of a machine while its lock is held.
type machine struct {
	record  state.Record
	name    string
	state   microvm.State
	run     *state.Run   // nil unless running or paused
	process *vmm.Process // of run; the driver's to close
	exit    *microvm.Exit
}

// load reads a machine under its lock. What an interrupted verb left is finished or undone first, and a run whose VMM has ended is settled, so what load
// returns is true.
func (d *driver) load(lock *state.Lock) (*machine, error) {
	uid := lock.UID()
	record, err := d.state.ReadRecord(uid)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", uid, microvm.ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	m := &machine{record: record}
	if m.name, err = d.state.NameOf(uid); err != nil {
		return nil, err
	}
	if m.run, err = d.state.ReadRun(uid); err != nil {
		return nil, err
	}
	if m.run != nil {
		if err := d.findRun(lock, m); err != nil {
			return nil, err
		}
	}
	if m.exit, err = d.lastExit(uid, m.run); err != nil {
		return nil, err
	}
	m.state = stateOf(&record, m.run, m.exit)
	return m, nil
}

// findRun finds the VMM of the machine's run, or ends the run.
func (d *driver) findRun(lock *state.Lock, m *machine) (err error) {
	if !m.run.Committed { // nobody starts it, since the lock is ours: a start was interrupted
		err = d.undoStart(lock, &m.record, m.run)
		m.run = nil
		return err
	}
	m.process, err = d.find(m.record.UID, m.run)
	if err == nil && forced(m.run) { // a stop was interrupted after its last word
		err = d.kill(m.record.UID, m.process)
		if err == nil {
			err = vmm.ErrGone
		}
	}
	if errors.Is(err, vmm.ErrGone) {
		_, err = d.settle(lock, &m.record, m.run, m.name)
		m.run, m.process = nil, nil
	}
	return err
}

// undoStart undoes a start that was interrupted before its commit. A VMM whose identity was not recorded yet is in the machine's leaf, or, where it has none or was not
// born there, is told by its arguments.
func (d *driver) undoStart(lock *state.Lock, record *state.Record, run *state.Run) error {
	var errs []error
	if run.Process != nil {
		process, err := d.find(record.UID, run)
		if err == nil {
			err = d.kill(record.UID, process)
		}
		if !errors.Is(err, vmm.ErrGone) {
			errs = append(errs, err)
		}
		d.forget(record.UID)
	} else {
		errs = append(errs, d.endStrays(record.UID))
	}
	errs = append(errs, d.endLeaf(record.UID), d.place(record).remove())
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("undo an interrupted start: %w", err)
	}
	return lock.RemoveRun()
}

// endStrays ends the machine's VMM, which no record leads to.
func (d *driver) endStrays(uid string) error { return vmm.EndStrays("--id", uid) }

// forced says whether the run's end by force was asked for: that can't be taken back.
func forced(run *state.Run) bool {
	return run.Intent != nil && run.Intent.Reason == microvm.ReasonForced
}

// find returns the live VMM of a run, or vmm.ErrGone.
func (d *driver) find(uid string, run *state.Run) (*vmm.Process, error) {
	process, err := d.processOf(uid, run)
	if err != nil {
		return nil, err
	}
	select {
	case <-process.Done():
		return nil, vmm.ErrGone
	default:
		return process, nil
	}
}

// stateOf derives the state from the records.
func stateOf(record *state.Record, run *state.Run, exit *microvm.Exit) microvm.State {
	switch {
	case record.Phase == state.PhaseCreating:
		return microvm.StateCreating
	case record.Phase == state.PhaseDestroying:
		return microvm.StateDestroying
	case run != nil:
		return run.State
	case exit != nil:
		return microvm.StateStopped
	}
	return microvm.StateCreated
}

// lastExit returns how the last run ended; nil when there was none, or while one goes on. A run without an end, and without a volatile record, ended
// with the host's last boot.
func (d *driver) lastExit(uid string, run *state.Run) (*microvm.Exit, error) {
	if run != nil {
		return nil, nil
	}
	exit, err := d.state.ReadExit(uid)
	if exit != nil || err != nil {
		return exit, err
	}
	begun, ok := d.state.Begun(uid)
	if !ok {
		return nil, nil
	}
	return &microvm.Exit{
		Reason: microvm.ReasonReboot, Code: -1, Time: begun,
		Evidence: []string{fmt.Sprintf("it was started at %s, before the host's present boot", begun.Format(time.RFC3339))},
	}, nil
}

func stateError(verb string, s microvm.State) error {
	return fmt.Errorf("%w: can't %s a machine that is %s", microvm.ErrState, verb, s)
}
