//go:build linux

package firecracker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/firewall"
	"github.com/tangle-network/microvm-runtime/internal/guard"
	"github.com/tangle-network/microvm-runtime/internal/netns"
	"github.com/tangle-network/microvm-runtime/internal/network"
	"github.com/tangle-network/microvm-runtime/internal/state"
)

// setRules makes a slot's rules, and what is published to it, what the record says, in one transaction each.
func (d *driver) setRules(ctx context.Context, n *network.Network, slot *network.Slot, ns *netns.Namespace, record *state.Record) error {
	config, err := ruleConfig(n, slot, record)
	if err != nil {
		return err
	}
	rules, err := firewall.OpenSlot(ns)
	if err != nil {
		return err
	}
	defer rules.Close()
	if err := rules.Install(config); err != nil {
		return fmt.Errorf("rules: %w", err)
	}
	if err := n.WithFirewall(func(host *firewall.Host) error { return publishPorts(host, record, config.Host) }); err != nil {
		return err
	}
	return d.setGuard(ctx, n, slot, record)
}

// errNoSlot says that a machine has no slot: not yet, not any more, or not since the host was booted.
var errNoSlot = errors.New("the slot is not made")

// withRules calls a function with the rules of a slot open. errNoSlot when it is not made.
func (d *driver) withRules(number int, f func(*firewall.Slot) error) error {
	ns, err := netns.Open(d.slotPath(number))
	if errors.Is(err, os.ErrNotExist) {
		return errNoSlot
	}
	if err != nil {
		return err
	}
	defer ns.Close()
	rules, err := firewall.OpenSlot(ns)
	if err != nil {
		return err
	}
	return errors.Join(f(rules), rules.Close())
}

// ruleConfig is what a slot's rules are a function of.
func ruleConfig(n *network.Network, slot *network.Slot, record *state.Record) (firewall.Config, error) {
	own := record.Spec.Network
	config, err := n.Config(slot.Number)
	if err != nil {
		return config, err
	}
	if config.Host, err = n.HostAddresses(); err != nil {
		return config, err
	}
	config.Rules, config.VerifySNI = record.Rules, own.Egress.VerifySNI
	if config.VerifySNI {
		config.GatePort = guard.GatePort
	}
	config.Limits = firewall.Limits{
		Connections: own.Caps.Flows, NewPerSecond: own.Caps.FlowsPerSecond, NewBurst: 2 * own.Caps.FlowsPerSecond,
		DNSPerSecond: own.Caps.NamesPerSecond, DNSBurst: 2 * own.Caps.NamesPerSecond,
	}
	for i, port := range own.Publish {
		again := func(other microvm.Port) bool { return other.Protocol == port.Protocol && other.Guest == port.Guest } // at another address of the host's, for the same networks
		if !slices.ContainsFunc(own.Publish[:i], again) {
			config.Ingress = append(config.Ingress, firewall.Ingress{Protocol: port.Protocol, Port: port.Guest, GuestPort: port.Guest, From: port.From})
		}
	}
	return config, nil
}

// assignRules gives each rule of a policy its number, which rules that stay keep.
func assignRules(record *state.Record) {
	if hasNetwork(&record.Spec) {
		record.Rules = firewall.AssignIDs(record.Rules, record.Spec.Network.Egress)
	}
}
