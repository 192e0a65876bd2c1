//go:build linux

package firecracker

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/firewall"
	"github.com/tangle-network/microvm-runtime/internal/guard"
	"github.com/tangle-network/microvm-runtime/internal/netns"
	"github.com/tangle-network/microvm-runtime/internal/network"
	"github.com/tangle-network/microvm-runtime/internal/state"
)

// hasNetwork says whether a machine has a network interface. The spec is a resolved one: nil is of a record that is older than networks.
func hasNetwork(spec *microvm.Spec) bool { return spec.Network != nil && !spec.Network.None }

// hostNetwork is the driver's network on the host. It is opened when the first machine needs it: who has no machine with a network needs no right to make one.
type hostNetwork struct {
	mu    sync.Mutex
	open  *network.Network
	ahead sync.Mutex // held while slots are made for machines to come
}

// slotPath returns where the namespace of a slot is.
func (d *driver) slotPath(number int) string {
	return filepath.Join(d.options.SocketDir, networkDir, "ns", strconv.Itoa(number))
}

// network opens the network, or makes it.
func (d *driver) network(ctx context.Context) (*network.Network, error) {
	d.hostNet.mu.Lock()
	defer d.hostNet.mu.Unlock()
	if d.hostNet.open != nil {
		return d.hostNet.open, nil
	}
	o, err := d.networkOptions()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(d.options.SocketDir, 0o700); err != nil {
		return nil, err
	}
	n, err := network.Open(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("network: %w", err)
	}
	if err := d.state.KeepSubnet(n.Info().Subnet); err != nil {
		return nil, err
	}
	d.hostNet.open = n
	d.calls.Go(func() { d.keepHostTable(n) })
	return n, nil
}

// networkOptions say which network is the state directory's. Its subnet stays what it once was, also over a reboot of the host: machines keep their addresses.
func (d *driver) networkOptions() (network.Options, error) {
	o := network.Options{Dir: filepath.Join(d.options.SocketDir, networkDir), ID: network.ID(d.options.StateDir), Subnet: d.options.Subnet, Uplink: d.options.Uplink, MTU: d.options.MTU, Host: d.options.hostNet}
	if o.Subnet.IsValid() {
		return o, nil
	}
	kept, err := d.state.Subnet()
	o.Subnet = kept
	return o, err
}

// networkDir is below the socket directory.
const networkDir = "network"

// networkIsMade says whether there was a network since the host was booted.
func (d *driver) networkIsMade() bool {
	_, err := os.Lstat(filepath.Join(d.options.SocketDir, networkDir, "network.json"))
	return !errors.Is(err, os.ErrNotExist)
}

// makeNetwork makes the slot of a machine, in which all is denied.
func (d *driver) makeNetwork(ctx context.Context, record *state.Record) error {
	slot, n, err := d.makeSlot(ctx, record)
	if err != nil {
		return err
	}
	record.Address = slot.Addresses.Slot
	assignRules(record)
	d.ahead(n)
	return publishable(n, record)
}

func (d *driver) makeSlot(ctx context.Context, record *state.Record) (*network.Slot, *network.Network, error) {
	n, err := d.network(ctx)
	if err != nil {
		return nil, nil, err
	}
	uid, gid := os.Geteuid(), os.Getegid()
	if record.Jailed {
		uid, gid = d.jailUser(record)
	}
	slot, err := n.Make(ctx, record.Slot, uid, gid)
	return slot, n, err
}

// returnNetwork takes all of a machine from its slot, for the next that has it. The lease says which that is: the record may be lost.
func (d *driver) returnNetwork(ctx context.Context, uid string) error {
	number, err := d.slots.Leased(uid)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if !d.networkIsMade() {
		return nil
	}
	n, err := d.network(ctx)
	if err != nil {
		return err
	}
	addresses, err := n.Addresses(number)
	if err != nil {
		return err
	}
	if err := d.leaveGuard(ctx, addresses.Slot); err != nil {
		return err
	}
	return n.Recycle(ctx, number)
}

func (d *driver) undoNetwork(ctx context.Context, record *state.Record) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoPatience)
	defer cancel()
	return d.returnNetwork(ctx, record.UID)
}

// enterNetwork makes the slot where it is missing, as after a reboot, sets its rules, and returns its namespace, open.
func (d *driver) enterNetwork(ctx context.Context, record *state.Record) (ns *netns.Namespace, err error) {
	slot, n, err := d.makeSlot(ctx, record)
	if err != nil {
		return nil, err
	}
	if ns, err = netns.Open(slot.Namespace); err != nil {
		return nil, err
	}
	if err := d.setRules(ctx, n, slot, ns, record); err != nil {
		return nil, errors.Join(err, ns.Close())
	}
	return ns, nil
}

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

// publishPorts leads the host's ports to a machine, and no other any more, and admits it to those of the host's own addresses that its policy names.
func publishPorts(host *firewall.Host, record *state.Record, own []netip.Addr) error {
	if err := replacePublished(host, record.Address, publications(record)); err != nil {
		return busyIfTaken(err)
	}
	return host.Admit(record.Address, record.Spec.Network.Caps.Flows, namedOf(own, record.Rules)...)
}

// publications are the ports of the host that lead to a machine.
func publications(record *state.Record) (list []firewall.Publication) {
	for _, port := range record.Spec.Network.Publish {
		if port.Host.IsValid() {
			list = append(list, firewall.Publication{
				Address: port.Host.Addr(), Protocol: port.Protocol, Port: port.Host.Port(), To: netip.AddrPortFrom(record.Address, port.Guest),
			})
		}
	}
	return list
}

func busyIfTaken(err error) error {
	if errors.Is(err, firewall.ErrTaken) {
		return fmt.Errorf("%w: %w", microvm.ErrBusy, err)
	}
	return err
}

// publishable returns microvm.ErrBusy when another state directory publishes a port of the machine's: the book of ports knows only this one's.
func publishable(n *network.Network, record *state.Record) error {
	return n.WithFirewall(func(host *firewall.Host) error { return busyIfTaken(host.Publishable(publications(record)...)) })
}

// replacePublished makes a list all that is published to a slot. What stays is not touched.
func replacePublished(host *firewall.Host, slot netip.Addr, list []firewall.Publication) error {
	there, err := host.Published()
	if err != nil {
		return err
	}
	there = slices.DeleteFunc(there, func(p firewall.Publication) bool { return p.To.Addr() != slot })
	if slices.ContainsFunc(there, func(p firewall.Publication) bool { return !slices.Contains(list, p) }) {
		if err := host.Unpublish(slot); err != nil {
			return err
		}
	}
	if len(list) == 0 {
		return nil
	}
	return host.Publish(list...)
}

// namedOf returns which of the host's own addresses rules name.
func namedOf(own []netip.Addr, rules []firewall.Rule) (named []netip.Addr) {
	for _, address := range own {
		if slices.ContainsFunc(rules, func(r firewall.Rule) bool { return r.Name == "" && r.MatchAddress(address, true) }) {
			named = append(named, address)
		}
	}
	return named
}

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

// networkInfo returns what a machine's network is, nil where it has none.
func networkInfo(record *state.Record) *microvm.NetworkInfo {
	if !record.Address.IsValid() {
		return nil
	}
	inside := network.Inside()
	return &microvm.NetworkInfo{Address: record.Address, Guest: inside.Guest, Gateway: inside.Gateway, MAC: inside.MAC.String()}
}

// removeNetwork takes away all that the host has of the driver's network. No machine may be left.
func (d *driver) removeNetwork(ctx context.Context) error {
	o, err := d.networkOptions()
	if err != nil {
		return err
	}
	if err := d.removeGuard(ctx); err != nil {
		return err
	}
	return network.Remove(ctx, o)
}
