//go:build linux

package firecracker

import (
	"context"
	"errors"
	"net/netip"
	"os"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/firewall"
	"github.com/tangle-network/microvm-runtime/internal/pager"
	"github.com/tangle-network/microvm-runtime/internal/state"
)

// Stats reads what the host counts of a machine, without its lock.
func (d *driver) Stats(ctx context.Context, uid string) (stats microvm.Stats, err error) {
	err = d.reading(ctx, func(ctx context.Context) error {
		if _, _, err := d.look(uid, ""); err != nil {
			return err
		}
		stats.Memory = d.memoryStats(ctx, uid)
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

// memoryStats is nil where no helper serves the memory, as at the moment when another takes over.
func (d *driver) memoryStats(ctx context.Context, uid string) *microvm.MemoryStats {
	run, err := d.state.ReadRun(uid)
	if err != nil || run == nil || !run.Pager {
		return nil
	}
	s, err := pager.Look(ctx, d.pagerDir(uid))
	if err != nil {
		return nil
	}
	return &microvm.MemoryStats{
		PageSize: int64(s.PageSize), Pages: int64(s.Pages), TookOver: s.TookOver,
		Faults: s.Faults, Copied: s.Copied, Zeroed: s.Zeroed, Removed: s.Removed, Prefetched: s.Prefetched,
		Prefetch: s.Prefetch, P50: s.Latency.Quantile(0.5), P99: s.Latency.Quantile(0.99),
	}
}

// networkStats is of nothing where the machine has no slot.
func (d *driver) networkStats(ctx context.Context, record *state.Record) (*microvm.NetworkStats, error) {
	stats := &microvm.NetworkStats{}
	for _, rule := range record.Spec.Network.Egress.Rules {
		stats.Rules = append(stats.Rules, microvm.RuleStats{Rule: rule})
	}
	if record.Phase != state.PhaseCreated { // the slot that the record names is another's
		return stats, nil
	}
	err := d.withRules(record.Slot, func(rules *firewall.Slot) error {
		names, _ := d.deniedNames(ctx, record) // many machines have no guard
		for name, times := range names {
			stats.Denied = append(stats.Denied, deniedName(name, times))
		}
		return addCounted(stats, rules, record)
	})
	if err != nil && !errors.Is(err, errNoSlot) {
		return nil, err
	}
	return stats, nil
}

// addCounted adds what a slot's rules have counted.
func addCounted(stats *microvm.NetworkStats, rules *firewall.Slot, record *state.Record) error {
	counters, err := rules.Counters()
	if err != nil {
		return err
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
	denied, err := rules.Denied()
	for _, flow := range denied {
		stats.Denied = append(stats.Denied, deniedFlow(flow))
	}
	return err
}

func deniedFlow(flow firewall.Denied) microvm.DeniedFlow {
	return microvm.DeniedFlow{Protocol: flow.Protocol, Address: flow.Address, Port: flow.Port, Packets: flow.Packets}
}

// deniedName is of what the guard has denied: a name, or an address that no name opens.
func deniedName(name string, times uint64) microvm.DeniedFlow {
	if address, err := netip.ParseAddr(name); err == nil && address.Is4() {
		return microvm.DeniedFlow{Address: address, Packets: times}
	}
	return microvm.DeniedFlow{Name: name, Packets: times}
}
