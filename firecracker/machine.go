//go:build linux

package firecracker

import (
	"errors"
	"fmt"
	"os"

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
// returns is true. With yield it answers errStarterFirst where another process knows better how a run ended.
func (d *driver) load(lock *state.Lock, yield bool) (*machine, error) {
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
		if err := d.findRun(lock, m, yield); err != nil {
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
func (d *driver) findRun(lock *state.Lock, m *machine, yield bool) (err error) {
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
	if err == nil && m.run.Taking != nil { // a snapshot was interrupted
		d.endTaking(lock, m)
	}
	if errors.Is(err, vmm.ErrGone) && yield && d.startersToSettle(m.record.UID) {
		return errStarterFirst
	}
	if errors.Is(err, vmm.ErrGone) {
		_, err = d.settle(lock, &m.record, m.run, m.name)
		m.run, m.process = nil, nil
	}
	return reachable(err)
}

// reachable makes of a find's error that a VMM which may live can't be reached a caller's.
func reachable(err error) error {
	if errors.Is(err, vmm.ErrMoved) {
		return fmt.Errorf("%w: %w (move it back, or destroy the machine)", microvm.ErrBusy, err)
	}
	if errors.Is(err, vmm.ErrForeign) {
		return fmt.Errorf("%w: %w (work from where it was started, or from the host's own namespace)", microvm.ErrBusy, err)
	}
	return err
}

// undoStart undoes a start that was interrupted before its commit. A VMM whose identity was not recorded yet is in the machine's leaf, or, where it has none or was not
// born there, is told by its arguments.
func (d *driver) undoStart(lock *state.Lock, record *state.Record, run *state.Run) error {
	if err := d.endUncommitted(record.UID, run); err != nil {
		return fmt.Errorf("undo an interrupted start: %w", err)
	}
	if err := errors.Join(d.endPager(record.UID), d.endLeaf(record.UID), d.place(record).remove()); err != nil {
		return fmt.Errorf("undo an interrupted start: %w", err)
	}
	return lock.RemoveRun()
}

// endUncommitted ends the VMM of an interrupted start.
func (d *driver) endUncommitted(uid string, run *state.Run) error {
	if run.Process == nil {
		return d.endStrays(uid)
	}
	process, err := d.findToEnd(uid, run)
	if err == nil {
		err = d.kill(uid, process)
	}
	if err != nil && !errors.Is(err, vmm.ErrGone) {
		return reachable(err)
	}
	d.forget(uid)
	return nil
}

// strays returns the processes that run the machine, whatever the records say.
func (d *driver) strays(uid string) ([]int, error) { return vmm.Strays("--id", uid) }

// endStrays ends the machine's VMM, which no record leads to.
func (d *driver) endStrays(uid string) error { return vmm.EndStrays("--id", uid) }

// forced says whether the run's end by force was asked for: that can't be taken back.
func forced(run *state.Run) bool {
	return run.Intent != nil && run.Intent.Reason == microvm.ReasonForced
}

// find returns the live VMM of a run, or vmm.ErrGone, vmm.ErrMoved or vmm.ErrForeign.
func (d *driver) find(uid string, run *state.Run) (*vmm.Process, error) {
	process, err := d.processOf(uid, run)
	if err != nil {
		return nil, d.lookWide(uid, err)
	}
	select {
	case <-process.Done():
		return nil, vmm.ErrGone
	default:
		return process, nil
	}
}

// findToEnd is find for who wants the VMM's end, wherever it was moved to.
func (d *driver) findToEnd(uid string, run *state.Run) (*vmm.Process, error) {
	process, err := d.find(uid, run)
	if !errors.Is(err, vmm.ErrMoved) {
		return process, err
	}
	run.Process.Cgroup = ""
	return d.find(uid, run)
}

// lookWide finds out more about a VMM of another PID namespace: from the host's own all processes are seen, also those of a namespace that is gone.
func (d *driver) lookWide(uid string, err error) error {
	if !errors.Is(err, vmm.ErrForeign) || !vmm.SeesAll() {
		return err
	}
	pids, failed := d.strays(uid)
	if failed == nil && len(pids) == 0 {
		return vmm.ErrGone
	}
	return errors.Join(err, failed)
}

// stateOf derives the state from the records.
func stateOf(record *state.Record, run *state.Run, exit *microvm.Exit) microvm.State {
	switch {
	case record.Phase == state.PhaseCreating, run != nil && run.Claiming:
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

func stateError(verb string, s microvm.State) error {
	return fmt.Errorf("%w: can't %s a machine that is %s", microvm.ErrState, verb, s)
}
