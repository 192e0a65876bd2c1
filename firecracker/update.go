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
		before := m.record.Spec.Network
		m.record.Spec = spec
		assignRules(&m.record)
		if change.Publish == nil {
			return d.update(ctx, lock, m, change)
		}
		if err := d.takePorts(ctx, uid, slices.Concat(before.Publish, spec.Network.Publish)); err != nil {
			return err
		}
		if err := d.publishable(ctx, &m.record); err != nil {
			return errors.Join(err, d.takePorts(ctx, uid, before.Publish))
		}
		if err := d.update(ctx, lock, m, change); err != nil {
			return err
		}
		return d.takePorts(ctx, uid, spec.Network.Publish) // others can have what leads here no more
	})
}

// update makes a machine's record, and its run if it has one, what they should be. What a change names is done again also where it is what the record has said.
func (d *driver) update(ctx context.Context, lock *state.Lock, m *machine, change microvm.Change) error {
	if err := lock.WriteRecord(m.record); err != nil {
		return err
	}
	rules := change.Egress != nil || change.Publish != nil || change.Caps != nil
	switch {
	case m.run == nil && rules: // the next start does the rest
		return d.withdraw(ctx, &m.record)
	case m.run == nil:
		return nil
	case rules:
		return errors.Join(d.renewNetwork(ctx, &m.record), d.updateLimits(ctx, &m.record, change))
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
