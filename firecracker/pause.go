//go:build linux

package firecracker

import (
	"context"
	"fmt"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/firecracker/api"
	"github.com/tangle-network/microvm-runtime/internal/state"
)

// Pause holds the vCPUs of a running machine.
func (d *driver) Pause(ctx context.Context, uid string) error {
	return d.turn(ctx, uid, "pause", microvm.StateRunning, microvm.StatePaused, microvm.EventPaused)
}

// Resume lets the vCPUs of a paused machine go on.
func (d *driver) Resume(ctx context.Context, uid string) error {
	return d.turn(ctx, uid, "resume", microvm.StatePaused, microvm.StateRunning, microvm.EventResumed)
}

// turn brings a machine from one state to the other. The VMM's word counts: what it says after an interrupted turn is what is recorded.
func (d *driver) turn(ctx context.Context, uid, verb string, from, to microvm.State, what microvm.EventType) error {
	return d.locked(ctx, uid, func(ctx context.Context, lock *state.Lock, m *machine) error {
		if m.state != from && m.state != to {
			return stateError(verb, m.state)
		}
		if err := notHeld(verb, m); err != nil {
			return err
		}
		if to == microvm.StatePaused {
			if err := d.permits(ctx, verb, m.run); err != nil {
				return err
			}
		}
		if err := d.setPaused(ctx, &m.record, to == microvm.StatePaused); err != nil { // also when the record says so: a turn back may have been interrupted
			return err
		}
		return d.noteTurn(lock, m, to, what)
	})
}

// notHeld refuses a machine that waits to be claimed: what it has stands until then.
func notHeld(verb string, m *machine) error {
	if m.run != nil && m.run.Held {
		return fmt.Errorf("%w: can't %s a machine that is held (claim it, or destroy it)", microvm.ErrState, verb)
	}
	return nil
}

// noteTurn records what a VMM has done, unless it is on record.
func (d *driver) noteTurn(lock *state.Lock, m *machine, to microvm.State, what microvm.EventType) error {
	if m.run.State == to {
		return nil
	}
	m.run.State = to
	if err := lock.WriteRun(*m.run); err != nil {
		return err
	}
	m.state = to
	d.tell(&m.record, m.name, what, nil)
	return nil
}

// setPaused tells the VMM; it is idempotent there.
func (d *driver) setPaused(ctx context.Context, record *state.Record, paused bool) error {
	wanted := api.VMResumed
	if paused {
		wanted = api.VMPaused
	}
	return d.askVMM(ctx, record, func(ctx context.Context, c *api.Client) error { return c.PatchVM(ctx, wanted) })
}

// apiPatience is how long a VMM may take to answer while the machine's lock is held: Stop and Destroy wait for it, too.
const apiPatience = 5 * time.Second

// askVMM is withAPI for what a VMM does at once. microvm.ErrNoAnswer when it does not.
func (d *driver) askVMM(ctx context.Context, record *state.Record, call func(context.Context, *api.Client) error) error {
	asking, cancel := context.WithTimeout(ctx, apiPatience)
	defer cancel()
	err := d.withAPI(asking, record, call)
	if err != nil && asking.Err() != nil && ctx.Err() == nil {
		return fmt.Errorf("%w: its VMM, within %v", microvm.ErrNoAnswer, apiPatience)
	}
	return err
}

// withAPI calls the VMM's API over a connection of its own. A VMM that hangs is ended: errHangs.
func (d *driver) withAPI(ctx context.Context, record *state.Record, call func(context.Context, *api.Client) error) error {
	client := d.client(record)
	defer client.Close()
	return d.unlessHung(ctx, record, func(ctx context.Context) error { return call(ctx, client) })
}
