//go:build linux

package firecracker

import (
	"context"
	"errors"
	"os"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/firewall"
	"github.com/tangle-network/microvm-runtime/internal/netns"
	"github.com/tangle-network/microvm-runtime/internal/state"
)

// Stats reads what the host counts of a machine, without its lock.
func (d *driver) Stats(ctx context.Context, uid string) (stats microvm.Stats, err error) {
	err = d.reading(ctx, func(ctx context.Context) error {
		if _, _, err := d.look(uid, ""); err != nil {
			return err
		}
		record, err := d.state.ReadRecord(uid)
		if errors.Is(err, os.ErrNotExist) { // it is being made, or destroyed
			return nil
		}
		if err != nil || !hasNetwork(&record.Spec) {
			return err
		}
		stats.Network, err = d.networkStats(ctx, &record)
		return err
	})
	return stats, err
}

// networkStats is of nothing where the machine has no slot: not yet, not any more, or not since the host was booted.
func (d *driver) networkStats(ctx context.Context, record *state.Record) (*microvm.NetworkStats, error) {
	stats := &microvm.NetworkStats{}
	for _, rule := range record.Spec.Network.Egress.Rules {
		stats.Rules = append(stats.Rules, microvm.RuleStats{Rule: rule})
	}
	if record.Phase != state.PhaseCreated { // the slot that the record names is another's
		return stats, nil
	}
	ns, err := netns.Open(d.slotPath(record.Slot))
	if errors.Is(err, os.ErrNotExist) {
		return stats, nil
	}
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	rules, err := firewall.OpenSlot(ns)
	if err != nil {
		return nil, err
	}
	defer rules.Close()
	counters, err := rules.Counters()
	if err != nil {
		return nil, err
	}
	for i := range stats.Rules { // numbered rules are in the policy's order
		if counted, ok := counters.Rules[record.Rules[i].ID]; ok {
			stats.Rules[i].Packets, stats.Rules[i].Bytes = counted.Packets, counted.Bytes
		}
	}
	stats.Drops = make(map[string]uint64, len(counters.Dropped))
	for reason, counted := range counters.Dropped {
		stats.Drops[reason] = counted.Packets
	}
	for name, times := range d.deniedNames(ctx, record) {
		stats.Denied = append(stats.Denied, microvm.DeniedFlow{Name: name, Packets: times})
	}
	denied, err := rules.Denied()
	for _, flow := range denied {
		stats.Denied = append(stats.Denied, deniedFlow(flow))
	}
	return stats, err
}

func deniedFlow(flow firewall.Denied) microvm.DeniedFlow {
	return microvm.DeniedFlow{Protocol: flow.Protocol, Address: flow.Address, Port: flow.Port, Packets: flow.Packets}
}
