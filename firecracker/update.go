//go:build linux

package firecracker

import (
	"context"
	"errors"
	"fmt"
	"reflect"
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
		before := m.record
		m.record.Spec = spec
		assignRules(&m.record)
		if change.Publish == nil {
			return d.update(ctx, lock, &before, m)
		}
		if err := d.takePorts(ctx, uid, slices.Concat(before.Spec.Network.Publish, spec.Network.Publish)); err != nil {
			return err
		}
		if err := d.update(ctx, lock, &before, m); err != nil {
			return err
		}
		return d.takePorts(ctx, uid, spec.Network.Publish) // others can have what leads here no more
	})
}

// update makes a machine's record, and its run if it has one, what they should be.
func (d *driver) update(ctx context.Context, lock *state.Lock, before *state.Record, m *machine) error {
	if err := lock.WriteRecord(m.record); err != nil {
		return err
	}
	if m.run == nil { // the next start does the rest
		if reflect.DeepEqual(before.Spec.Network, m.record.Spec.Network) {
			return nil
		}
		return d.withdraw(ctx, before)
	}
	return errors.Join(d.updateRules(ctx, before, &m.record), d.updateLimits(ctx, before, &m.record))
}

// updateRules sets the rules of a machine that runs.
func (d *driver) updateRules(ctx context.Context, before, after *state.Record) error {
	if !hasNetwork(&after.Spec) || reflect.DeepEqual(before.Spec.Network, after.Spec.Network) {
		return nil
	}
	ns, err := d.enterNetwork(ctx, after)
	return errors.Join(err, ns.Close())
}

// updateLimits tells a VMM the limits that are other than before.
func (d *driver) updateLimits(ctx context.Context, before, after *state.Record) error {
	client := d.client(after)
	defer client.Close()
	was, now := planOf(before), planOf(after)
	if now.network != nil && !reflect.DeepEqual(was.network, now.network) {
		patch := api.NetworkInterfacePatch{IfaceID: network.Interface, RxRateLimiter: lifted(now.network.receive), TxRateLimiter: lifted(now.network.transmit)}
		if err := client.PatchNetworkInterface(ctx, patch); err != nil {
			return fmt.Errorf("limits of the network: %w", err)
		}
	}
	for i, drive := range now.drives {
		if reflect.DeepEqual(was.drives[i].limit, drive.limit) {
			continue
		}
		if err := client.PatchDrive(ctx, api.DrivePatch{DriveID: drive.id, RateLimiter: lifted(drive.limit)}); err != nil {
			return fmt.Errorf("limits of drive %s: %w", drive.id, err)
		}
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
