//go:build linux

package firecracker

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/firewall"
	"github.com/tangle-network/microvm-runtime/internal/publish"
	"github.com/tangle-network/microvm-runtime/internal/state"
)

// takePorts makes the host's ports that a machine publishes its own.
func (d *driver) takePorts(ctx context.Context, uid string, ports []microvm.Port) error {
	err := d.ports.Take(ctx, uid, ports)
	if held := (*publish.HeldError)(nil); errors.As(err, &held) {
		name, _ := d.state.NameOf(held.Holder)
		return fmt.Errorf("%w (machine %q)", err, name)
	}
	return err
}

func (d *driver) undoPorts(ctx context.Context, record *state.Record) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoPatience)
	defer cancel()
	return d.ports.Return(ctx, record.UID)
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
func (d *driver) publishable(ctx context.Context, record *state.Record) error {
	return d.withHostTable(ctx, func(host *firewall.Host) error { return busyIfTaken(host.Publishable(publications(record)...)) })
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
