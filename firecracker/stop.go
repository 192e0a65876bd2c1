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
func (d *driver) Stop(ctx context.Context, uid string, o microvm.StopOptions) (exit microvm.Exit, err error) {
	err = d.locked(ctx, uid, func(ctx context.Context, lock *state.Lock, m *machine) error {
		switch m.state {
		case microvm.StateStopped:
			exit = *m.exit
			return nil
		case microvm.StateRunning, microvm.StatePaused:
		default:
			return stateError("stop", m.state)
		}
		if err := d.descend(ctx, lock, m, o); err != nil {
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

// descend goes down the ladder until the VMM has ended.
func (d *driver) descend(ctx context.Context, lock *state.Lock, m *machine, o microvm.StopOptions) error {
	grace := o.Grace
	if grace <= 0 {
		grace = defaultGrace
	}
	if !o.Force {
		if err := d.intend(lock, m.run, microvm.ReasonStopped); err != nil {
			return err
		}
		for _, ask := range d.asks(ctx, lock, m, grace) {
			done, err := d.askAndWait(ctx, m.process, grace, ask)
			if done || err != nil {
				return err
			}
		}
	}
	if err := context.Cause(ctx); err != nil { // nothing escalates after the context
		return err
	}
	if err := d.intend(lock, m.run, microvm.ReasonForced); err != nil {
		return err
	}
	return d.kill(m.record.UID, m.process)
}

// asks returns the graceful steps that this machine may understand. It runs for them: a pause that was interrupted may not be on record.
func (d *driver) asks(ctx context.Context, lock *state.Lock, m *machine, grace time.Duration) []func(context.Context) error {
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
	var asks []func(context.Context) error
	if m.record.Agent {
		asks = append(asks, func(ctx context.Context) error { return guest.Shutdown(ctx, dialer{d, uid}) })
	}
	if runtime.GOARCH == "amd64" {
		asks = append(asks, func(ctx context.Context) error {
			return d.withAPI(ctx, &m.record, func(c *api.Client) error { return c.Action(ctx, api.SendCtrlAltDel) })
		})
	}
	return asks
}

// askAndWait says whether the VMM ended within grace. That asking fails is not the end: the next step is due then, at once.
func (d *driver) askAndWait(ctx context.Context, process *vmm.Process, grace time.Duration, ask func(context.Context) error) (bool, error) {
	asking, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	asked := ask(asking)
	if asked != nil && context.Cause(ctx) == nil {
		d.log.Debug("a step of stop failed", "error", asked)
		cancel()
	}
	select {
	case <-process.Done():
		return true, nil
	case <-asking.Done():
		return false, context.Cause(ctx)
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
