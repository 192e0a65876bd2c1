package inmemory

import (
	"context"
	"fmt"

	microvm "github.com/tangle-network/microvm-runtime"
)

// Claim hands out a machine that is held. There is no agent to tell.
func (d *driver) Claim(ctx context.Context, uid, held, name string, o microvm.ClaimOptions) (microvm.Evidence, error) {
	m, err := d.findHeld(ctx, "claim", uid, held)
	if err != nil {
		return nil, err
	}
	defer d.mu.Unlock()
	if !m.runs() {
		return nil, stateError("claim", m.info.State)
	}
	spec, err := o.Change.Apply(m.info.Spec)
	if err != nil {
		return nil, err
	}
	if err := d.checkPorts(uid, spec.Network); err != nil {
		return nil, err
	}
	if d.names[name] != "" && name != held {
		return nil, fmt.Errorf("name %q: %w", name, microvm.ErrExists)
	}
	delete(d.names, held)
	m.info.Name, d.names[name] = name, uid
	m.info.Spec, m.info.State, m.info.Held = spec, microvm.StateRunning, false
	d.tell(m, microvm.EventClaimed, nil)
	return nil, nil
}

// Discard destroys a machine that nobody has.
func (d *driver) Discard(ctx context.Context, uid, held string) error {
	m, err := d.findHeld(ctx, "discard", uid, held)
	if err != nil {
		return err
	}
	defer d.mu.Unlock()
	d.destroy(m)
	return nil
}

// findHeld is find for a machine that nobody has, under this name.
func (d *driver) findHeld(ctx context.Context, verb, uid, held string) (*machine, error) {
	m, err := d.find(ctx, verb, uid)
	if err != nil {
		return nil, err
	}
	if m.info.Name != held {
		err = fmt.Errorf("%q: %w", held, microvm.ErrNotFound)
	} else if m.runs() && !m.info.Held {
		err = fmt.Errorf("%w: the machine is not held", microvm.ErrState)
	}
	if err != nil {
		d.mu.Unlock()
		return nil, err
	}
	return m, nil
}
