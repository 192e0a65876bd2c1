//go:build linux

package firecracker

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/guest"
	"github.com/tangle-network/microvm-runtime/internal/state"
	"github.com/tangle-network/microvm-runtime/internal/step"
)

// Claim hands out a machine that is held under a name.
func (d *driver) Claim(ctx context.Context, uid, held, name string, o microvm.ClaimOptions) (evidence microvm.Evidence, err error) {
	err = d.locked(ctx, uid, func(ctx context.Context, lock *state.Lock, m *machine) error {
		if err := heldUnder(m, held); err != nil {
			return err
		}
		if m.state != microvm.StatePaused {
			return stateError("claim", m.state)
		}
		if err := keeps(m.record.Agent, "ClaimOptions", o.Env, o.Secrets); err != nil {
			return err
		}
		spec, err := o.Change.Apply(m.record.Spec)
		if err != nil {
			return err
		}
		c := &claim{driver: d, lock: lock, machine: m, name: name, spec: spec, options: o}
		err = c.run(ctx)
		evidence = c.evidence
		return err
	})
	return evidence, err
}

// Discard destroys a machine that nobody has claimed.
func (d *driver) Discard(ctx context.Context, uid, held string) error {
	return d.locked(ctx, uid, func(ctx context.Context, lock *state.Lock, m *machine) error {
		if err := heldUnder(m, held); err != nil {
			return err
		}
		return d.destroy(ctx, lock, &m.record, m.name)
	})
}

// heldUnder refuses a machine that has another name by now, or is somebody's. One that has ended is nobody's if nobody has claimed it: its name tells.
func heldUnder(m *machine, held string) error {
	if m.name != held {
		return fmt.Errorf("%q: %w", held, microvm.ErrNotFound)
	}
	if m.run != nil && !m.run.Held {
		return fmt.Errorf("%w: the machine is not held (it was claimed, or not restored for it)", microvm.ErrState)
	}
	return nil
}

// claim is one hand-over of one machine.
type claim struct {
	driver  *driver
	lock    *state.Lock
	machine *machine
	name    string
	spec    microvm.Spec // with the change
	options microvm.ClaimOptions

	touched  bool // it may not be held any more as it was
	evidence microvm.Evidence
}

// run is the sequence of Claim. Until the machine is touched a failure leaves it held; after that it is nobody's, and is destroyed.
func (c *claim) run(ctx context.Context) (err error) {
	d, record := c.driver, &c.machine.record
	steps := step.Begin("claim", d.options.hook)
	defer func() {
		if err == nil {
			return
		}
		if !c.touched {
			steps.End(&err)
			return
		}
		err = errors.Join(err, d.destroy(context.WithoutCancel(ctx), c.lock, record, c.name))
		c.machine.process = nil // its end is no business of who holds the lock any more
	}()
	if err := steps.Do("record", func() error { return c.note(true, true) }, func() error { return c.note(true, false) }); err != nil {
		return err
	}
	if err := steps.Do("name", func() error { return c.lock.Move(c.name) }, func() error { return c.lock.Rename(c.machine.name) }); err != nil {
		return err
	}
	flushed := beside(c.lock.FlushName)
	defer flushed()
	if c.options.Change.Publish != nil { // which may be somebody's: then the machine is as good as it was
		if err := steps.Do("ports", func() error { return c.takePorts(ctx) }, func() error { return c.returnPorts(ctx) }); err != nil {
			return err
		}
	}
	c.touched = true
	if err := c.change(ctx, steps); err != nil {
		return err
	}
	if err := steps.Do("resume", func() error { return d.setPaused(ctx, record, false) }, nil); err != nil {
		return err
	}
	if record.Agent {
		if err := steps.Do("renew", func() error { return c.renew(ctx) }, nil); err != nil {
			return err
		}
	}
	if err := steps.Do("commit", func() error { return c.commit(flushed) }, nil); err != nil {
		return err
	}
	d.tell(record, c.name, microvm.EventClaimed, nil)
	return nil
}

// note records how far it is.
func (c *claim) note(held, claiming bool) error {
	c.machine.run.Held, c.machine.run.Claiming = held, claiming
	return c.lock.WriteRun(*c.machine.run)
}

func (c *claim) takePorts(ctx context.Context) error {
	record := c.machine.record
	record.Spec = c.spec
	return c.driver.addPorts(ctx, &record, c.machine.record.Spec.Network.Publish)
}

func (c *claim) returnPorts(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoPatience)
	defer cancel()
	return c.driver.takePorts(ctx, c.machine.record.UID, c.machine.record.Spec.Network.Publish)
}

// change makes the machine what the options say, as Update does.
func (c *claim) change(ctx context.Context, steps *step.Sequence) error {
	if c.options.Change.Empty() {
		return nil
	}
	return c.driver.change(ctx, steps, c.lock, c.machine, c.spec, c.options.Change)
}

// renew has the agent make the machine the one that it was claimed for, and lets its workload go on.
func (c *claim) renew(ctx context.Context) error {
	manifest, err := c.driver.snaps.Read(c.machine.run.Snapshot)
	if err != nil {
		return err
	}
	renewal := guest.Renewal{
		Token: manifest.Token(), Generation: c.machine.record.UID, Hostname: cmp.Or(c.options.Hostname, hostnameOf(c.name), c.machine.record.UID), Env: c.options.Env, Secrets: bytesOf(c.options.Secrets),
	}
	c.evidence, err = c.driver.renewGuest(ctx, renewing{&c.machine.record, c.machine.process, c.options.AgentTimeout}, renewal)
	return err
}

// commit says that the machine is its claimer's.
func (c *claim) commit(flushed func() error) error {
	if err := flushed(); err != nil {
		return err
	}
	c.machine.run.State = microvm.StateRunning
	return c.note(false, false)
}
