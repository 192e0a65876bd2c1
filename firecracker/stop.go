//go:build linux

package firecracker

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/firecracker/api"
	"github.com/tangle-network/microvm-runtime/guest"
	"github.com/tangle-network/microvm-runtime/internal/state"
	"github.com/tangle-network/microvm-runtime/internal/vmm"
)

const (
	defaultGrace = 5 * time.Second
	// killPatience is how long a killed VMM may take to be gone. It is the kernel's to free the guest's memory.
	killPatience = 30 * time.Second
)

// Stop is the ladder: the agent is asked; Ctrl-Alt-Del is sent; the VMM is killed. SIGTERM is no step of it: Firecracker has no handler, and as a
// namespace's init it would ignore it for ever.
//
// The lock is free while the guest is waited for, so that Destroy, or a Stop with Force, need not wait too.
func (d *driver) Stop(ctx context.Context, uid string, o microvm.StopOptions) (microvm.Exit, error) {
	ctx, leave, err := d.enter(ctx)
	if err != nil {
		return microvm.Exit{}, err
	}
	defer leave()
	var process *vmm.Process // of the run that is to end
	if !o.Force {
		var record state.Record
		var asks []ask
		err := d.withMachine(ctx, uid, func(ctx context.Context, lock *state.Lock, m *machine) (err error) {
			record, process = m.record, m.process
			asks, err = d.beginStop(ctx, lock, m, o)
			return err
		})
		if err == nil {
			err = d.askAll(ctx, &record, process, asks, graceOf(o))
		}
		if err != nil {
			return microvm.Exit{}, err
		}
	}
	return d.endStop(ctx, uid, process)
}

// beginStop records the wish, and returns what a guest may understand of it; nothing for one that runs no more.
func (d *driver) beginStop(ctx context.Context, lock *state.Lock, m *machine, o microvm.StopOptions) ([]ask, error) {
	switch m.state {
	case microvm.StateStopped:
		return nil, nil
	case microvm.StateRunning, microvm.StatePaused:
	default:
		return nil, stateError("stop", m.state)
	}
	if m.run.Held { // its guest is not to go on, not even for its end
		return nil, nil
	}
	if err := d.intend(lock, m.run, microvm.ReasonStopped); err != nil {
		return nil, err
	}
	return d.asks(ctx, lock, m, graceOf(o)), nil
}

// endStop ends what runs still, by force, and says how the run ended. Process is the one that was asked, nil when none was.
func (d *driver) endStop(ctx context.Context, uid string, process *vmm.Process) (exit microvm.Exit, err error) {
	err = d.withMachine(ctx, uid, func(ctx context.Context, lock *state.Lock, m *machine) error {
		switch {
		case m.state == microvm.StateStopped:
			exit = *m.exit
			return nil
		case m.process == nil:
			return stateError("stop", m.state)
		case process != nil && process.Identity() != m.process.Identity():
			return fmt.Errorf("%w: it was stopped, and started again by somebody else", microvm.ErrBusy)
		}
		if err := context.Cause(ctx); err != nil { // nothing escalates after the context
			return err
		}
		if err := d.intend(lock, m.run, microvm.ReasonForced); err != nil {
			return err
		}
		if err := d.kill(uid, m.process); err != nil {
			return err
		}
		settled, err := d.settle(lock, &m.record, m.run, m.name)
		if err == nil {
			exit = *settled
		}
		return err
	})
	return exit, err
}

func graceOf(o microvm.StopOptions) time.Duration {
	if o.Grace > 0 {
		return o.Grace
	}
	return defaultGrace
}

// ask asks a guest to end.
type ask func(context.Context) error

// askAll goes down the graceful steps until the VMM has ended.
func (d *driver) askAll(ctx context.Context, record *state.Record, process *vmm.Process, asks []ask, grace time.Duration) error {
	for _, ask := range asks {
		err := d.unlessHung(ctx, record, func(ctx context.Context) error { return d.askAndWait(ctx, process, grace, ask) })
		if ended(process) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func ended(process *vmm.Process) bool {
	select {
	case <-process.Done():
		return true
	default:
		return false
	}
}

// asks returns the graceful steps that this machine may understand. It runs for them: a pause that was interrupted may not be on record.
func (d *driver) asks(ctx context.Context, lock *state.Lock, m *machine, grace time.Duration) []ask {
	uid := m.record.UID
	resuming, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	if err := d.setPaused(resuming, &m.record, false); err != nil {
		d.log.Debug("the VMM can't resume", "uid", uid, "error", err)
		return nil // nor can it hear
	}
	if err := d.noteTurn(lock, m, microvm.StateRunning, microvm.EventResumed); err != nil {
		d.log.Warn("that the machine is resumed is not recorded", "uid", uid, "error", err)
	}
	var asks []ask
	if m.record.Agent {
		asks = append(asks, func(ctx context.Context) error { return guest.Shutdown(ctx, dialer{d, uid}) })
	}
	if runtime.GOARCH == "amd64" {
		asks = append(asks, func(ctx context.Context) error {
			return d.withAPI(ctx, &m.record, func(ctx context.Context, c *api.Client) error { return c.Action(ctx, api.SendCtrlAltDel) })
		})
	}
	return asks
}

// lastBreath is how long a VMM may take to be gone that did not answer a wish to end: it may be ending over it.
const lastBreath = 200 * time.Millisecond

// askAndWait waits until the VMM has ended, or grace is over. That asking fails is not the end: the next step is due then.
func (d *driver) askAndWait(ctx context.Context, process *vmm.Process, grace time.Duration, ask ask) error {
	asking, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	asked := ask(asking)
	if asked != nil && context.Cause(ctx) == nil {
		d.log.Debug("a step of stop failed", "error", asked)
		timer := time.AfterFunc(lastBreath, cancel)
		defer timer.Stop()
	}
	select {
	case <-process.Done():
		return nil
	case <-asking.Done():
		return context.Cause(ctx)
	}
}

// intend records who ends a run, before it is ended.
func (d *driver) intend(lock *state.Lock, run *state.Run, reason microvm.Reason) error {
	run.Intent = &state.Intent{Reason: reason, Time: time.Now().Round(0)}
	return lock.WriteRun(*run)
}

// kill ends a VMM and waits until it is gone.
func (d *driver) kill(uid string, process *vmm.Process) error {
	if err := process.Kill(); err != nil && !errors.Is(err, vmm.ErrGone) {
		return err
	}
	select {
	case <-process.Done():
		return nil
	case <-time.After(killPatience):
		return fmt.Errorf("%w: the VMM of %s, process %d, is killed and not gone after %v", microvm.ErrBusy, uid, process.Identity().PID, killPatience)
	}
}
