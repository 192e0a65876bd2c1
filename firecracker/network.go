//go:build linux

package firecracker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	microvm "github.com/tangle-network/microvm-runtime"
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

const networkDir = "network" // below the socket directory

func (d *driver) networkPath() string { return filepath.Join(d.options.SocketDir, networkDir) }

// slotPath returns where the namespace of a slot is.
func (d *driver) slotPath(number int) string { return network.Namespace(d.networkPath(), number) }

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
	o := network.Options{
		Dir: d.networkPath(), ID: network.ID(d.options.StateDir), Subnet: d.options.Subnet, Uplink: d.options.Uplink, MTU: d.options.MTU, Host: d.options.hostNet,
	}
	if o.Subnet.IsValid() {
		return o, nil
	}
	kept, err := d.state.Subnet()
	o.Subnet = kept
	return o, err
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
	return d.publishable(ctx, record)
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
	if !network.Made(d.networkPath()) {
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

// renewNetwork makes the network of a machine that runs what its record says.
func (d *driver) renewNetwork(ctx context.Context, record *state.Record) error {
	ns, err := d.enterNetwork(ctx, record)
	return errors.Join(err, ns.Close())
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
