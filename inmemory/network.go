package inmemory

import (
	"context"
	"fmt"
	"net/netip"

	microvm "github.com/tangle-network/microvm-runtime"
)

// firstAddress is of the first machine. No packet ever goes there.
var firstAddress = netip.MustParseAddr("10.64.0.4")

// address returns what a machine's network is: the lowest address that no machine has.
func (d *driver) address(network *microvm.Network) *microvm.NetworkInfo {
	if network.None {
		return nil
	}
	taken := map[netip.Addr]bool{}
	for _, m := range d.machines {
		if m.info.Network != nil {
			taken[m.info.Network.Address] = true
		}
	}
	address := firstAddress
	for taken[address] {
		address = address.Next()
	}
	return &microvm.NetworkInfo{
		Address: address, Guest: netip.MustParsePrefix("172.16.0.2/30"), Gateway: netip.MustParseAddr("172.16.0.1"), MAC: "06:00:ac:10:00:02",
	}
}

// checkPorts refuses a port of the host's that another machine has.
func (d *driver) checkPorts(uid string, network *microvm.Network) error {
	if network == nil {
		return nil
	}
	for _, m := range d.machines {
		if m.info.UID == uid {
			continue
		}
		for _, had := range m.info.Spec.Network.Publish {
			for _, wanted := range network.Publish {
				if wanted.Clashes(had) {
					return fmt.Errorf("%w: %s port %v is published by %s (machine %q)", microvm.ErrBusy, had.Protocol, had.Host, m.info.UID, m.info.Name)
				}
			}
		}
	}
	return nil
}

// Update changes what the Spec says. There is nothing that would do otherwise for it.
func (d *driver) Update(ctx context.Context, uid string, change microvm.Change) error {
	m, err := d.find(ctx, "update", uid)
	if err != nil {
		return err
	}
	defer d.mu.Unlock()
	spec, err := change.Apply(m.info.Spec)
	if err != nil {
		return err
	}
	if err := d.checkPorts(uid, spec.Network); err != nil {
		return err
	}
	m.info.Spec = spec
	return nil
}

// Stats counts nothing: no packet ever goes anywhere.
func (d *driver) Stats(ctx context.Context, uid string) (microvm.Stats, error) {
	m, err := d.find(ctx, "stats", uid)
	if err != nil {
		return microvm.Stats{}, err
	}
	defer d.mu.Unlock()
	if m.info.Network == nil {
		return microvm.Stats{}, nil
	}
	stats := &microvm.NetworkStats{}
	for _, rule := range m.info.Spec.Network.Egress.Rules {
		stats.Rules = append(stats.Rules, microvm.RuleStats{Rule: rule})
	}
	return microvm.Stats{Network: stats}, nil
}
