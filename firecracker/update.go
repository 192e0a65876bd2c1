//go:build linux

package firecracker

import (
	"context"
	"errors"
	"fmt"
	"slices"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/firecracker/api"
	"github.com/tangle-network/microvm-runtime/internal/network"
	"github.com/tangle-network/microvm-runtime/internal/state"
	"github.com/tangle-network/microvm-runtime/internal/step"
)

// Update changes a machine's record, and what runs by it. The record is first: what an interrupted update has left undone, the next start does, or the same update.
func (d *driver) Update(ctx context.Context, uid string, change microvm.Change) error {
	return d.locked(ctx, uid, func(ctx context.Context, lock *state.Lock, m *machine) error {
		if m.state == microvm.StateCreating || m.state == microvm.StateDestroying {
			return stateError("update", m.state)
		}
		spec, err := change.Apply(m.record.Spec)
		if err != nil {
			return err
		}
		return d.change(ctx, step.Begin("update", d.options.hook), lock, m, spec, change)
	})
}

// change makes a change of which the spec is the outcome.
func (d *driver) change(ctx context.Context, steps *step.Sequence, lock *state.Lock, m *machine, spec microvm.Spec, change microvm.Change) error {
	before := m.record.Spec.Network
	m.record.Spec = spec
	assignRules(&m.record)
	ports := change.Publish != nil
	if ports {
		if err := steps.Do("take-ports", func() error { return d.addPorts(ctx, &m.record, before.Publish) }, nil); err != nil {
			return err
		}
	}
	if err := steps.Do("record", func() error { return lock.WriteRecord(m.record) }, nil); err != nil && ports {
		return errors.Join(err, d.undoUpdate(ctx, lock))
	} else if err != nil {
		return err
	}
	if err := d.applyUpdate(ctx, steps, m, change); err != nil || !ports {
		return err
	}
	return steps.Do("return-ports", func() error { return d.takePorts(ctx, m.record.UID, spec.Network.Publish) }, nil) // others can have what leads here no more
}

// addPorts takes the ports that a record says beside those that the machine has had.
func (d *driver) addPorts(ctx context.Context, record *state.Record, before []microvm.Port) error {
	if err := d.takePorts(ctx, record.UID, slices.Concat(before, record.Spec.Network.Publish)); err != nil {
		return err
	}
	if err := d.publishable(ctx, record); err != nil {
		return errors.Join(err, d.takePorts(ctx, record.UID, before))
	}
	return nil
}

// undoUpdate gives back the ports of an update that could not be written.
func (d *driver) undoUpdate(ctx context.Context, lock *state.Lock) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoPatience)
	defer cancel()
	return d.portsAsRecorded(ctx, lock)
}

// portsAsRecorded makes the ports of a machine those that its record says, whichever that is, when nothing leads to it by others any more.
func (d *driver) portsAsRecorded(ctx context.Context, lock *state.Lock) error {
	m, err := d.load(lock, true)
	if err != nil || !hasNetwork(&m.record.Spec) {
		return err
	}
	if err := d.updateNetwork(ctx, m); err != nil {
		return err
	}
	return d.takePorts(ctx, m.record.UID, m.record.Spec.Network.Publish)
}

// applyUpdate makes a machine's run, if it has one, what its record says. What a change names is done again also where it is what the record has said.
func (d *driver) applyUpdate(ctx context.Context, steps *step.Sequence, m *machine, change microvm.Change) error {
	if change.Egress != nil || change.Publish != nil || change.Caps != nil {
		if err := steps.Do("network", func() error { return d.updateNetwork(ctx, m) }, nil); err != nil {
			return errors.Join(err, d.updateLimitsOf(ctx, m, change))
		}
	}
	return steps.Do("limits", func() error { return d.updateLimitsOf(ctx, m, change) }, nil)
}

// updateNetwork does what the next start does by itself where a machine has no run, but for what leads there meanwhile.
func (d *driver) updateNetwork(ctx context.Context, m *machine) error {
	if m.run == nil {
		return d.withdraw(ctx, &m.record)
	}
	return d.renewNetwork(ctx, &m.record)
}

// updateLimitsOf tells a VMM, where there is one, the limits that a change names.
func (d *driver) updateLimitsOf(ctx context.Context, m *machine, change microvm.Change) error {
	if m.run == nil {
		return nil
	}
	return d.updateLimits(ctx, &m.record, change)
}

// updateLimits tells a VMM the limits that a change names.
func (d *driver) updateLimits(ctx context.Context, record *state.Record, change microvm.Change) error {
	if change.Receive != nil || change.Transmit != nil {
		if err := d.limitNetwork(ctx, record); err != nil {
			return err
		}
	}
	drives := planOf(record).drives
	own := len(drives) - len(record.Spec.Drives) // the machine's own disks are first
	for i, drive := range drives {
		_, named := change.DriveLimit[i-own]
		if i < own {
			named = change.DiskLimit != nil
		}
		if !named {
			continue
		}
		patch := api.DrivePatch{DriveID: drive.id, RateLimiter: lifted(drive.limit)}
		if err := d.askVMM(ctx, record, func(ctx context.Context, c *api.Client) error { return c.PatchDrive(ctx, patch) }); err != nil {
			return fmt.Errorf("limits of drive %s: %w", drive.id, err)
		}
	}
	return nil
}

// limitNetwork tells a VMM the limits of its network.
func (d *driver) limitNetwork(ctx context.Context, record *state.Record) error {
	n := planOf(record).network
	patch := api.NetworkInterfacePatch{IfaceID: network.Interface, RxRateLimiter: lifted(n.receive), TxRateLimiter: lifted(n.transmit)}
	if err := d.askVMM(ctx, record, func(ctx context.Context, c *api.Client) error { return c.PatchNetworkInterface(ctx, patch) }); err != nil {
		return fmt.Errorf("limits of the network: %w", err)
	}
	return nil
}

// lifted is limiter for a device that may have limits: what is not limited is said too.
func lifted(l *microvm.RateLimit) *api.RateLimiter {
	none := &api.TokenBucket{}
	limits := &api.RateLimiter{Bandwidth: none, Ops: none}
	if set := limiter(l); set != nil {
		if set.Bandwidth != nil {
			limits.Bandwidth = set.Bandwidth
		}
		if set.Ops != nil {
			limits.Ops = set.Ops
		}
	}
	return limits
}
