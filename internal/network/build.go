//go:build linux

package network

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"

	"github.com/tangle-network/microvm-runtime/internal/netns"
	"github.com/tangle-network/microvm-runtime/internal/step"
	"github.com/tangle-network/microvm-runtime/internal/unix"
)

// remake makes a slot where there is none, or only something that looks like one.
func (n *Network) remake(number, uid, gid int) (_ *Slot, err error) {
	if err := n.clear(number); err != nil {
		return nil, fmt.Errorf("clear slot %d: %w", number, err)
	}
	s := step.Begin("slot", n.options.Hook)
	defer s.End(&err)
	var ns *netns.Namespace
	defer func() { ns.Close() }()
	make := func() error {
		ns, err = netns.Make(n.options.namespace(number))
		return err
	}
	if err := s.Do("namespace", make, func() error { return n.clear(number) }); err != nil {
		return nil, err
	}
	for _, do := range []struct {
		name string
		do   func() error
	}{
		{"settings", func() error { return ns.Do(func() error { return set(router()) }) }},
		{"link", func() error { return n.join(number, ns) }},
		{"tap", func() error { return tap(ns, uid, gid, n.record.MTU) }},
		{"rules", func() error { return n.rules.slot(n, ns, number) }},
		{"routes", func() error { return n.lead(number, ns) }},
		{"commit", func() error { return n.commit(number, uid, gid) }},
	} {
		if err := s.Do(do.name, do.do, nil); err != nil {
			return nil, fmt.Errorf("make slot %d: %w", number, err)
		}
	}
	a, err := n.Addresses(number)
	return &Slot{Number: number, UID: uid, GID: gid, Namespace: n.options.namespace(number), Addresses: a}, err
}

// commit says that all of a slot is made.
func (n *Network) commit(number, uid, gid int) error {
	hub, err := n.hubIdentity()
	if err != nil {
		return err
	}
	return save(n.options.slotPath(number), slotRecord{Version: version, UID: uid, GID: gid, MTU: n.record.MTU, Hub: hub})
}

func (n *Network) slotEnd(address netip.Addr) end {
	return end{name: link, mac: slotMAC, address: single(address), peer: n.plan.hub(), peerMAC: slotHubMAC, routes: []netip.Prefix{single(n.plan.hub()), everywhere}}
}

func (n *Network) slotHubEnd(number int, address netip.Addr) end {
	return end{name: hubLink(number), mac: slotHubMAC, peer: address, peerMAC: slotMAC, routes: []netip.Prefix{single(address)}}
}

// join makes the link between a slot and the hub.
func (n *Network) join(number int, ns *netns.Namespace) error {
	address, err := n.plan.slot(number)
	if err != nil {
		return err
	}
	return at(n.options.hubPath(), func(_ *netns.Namespace, h *netlink.Handle) error {
		return pair(h, n.slotHubEnd(number, address), n.slotEnd(address), ns, n.record.MTU)
	})
}

// tap makes the TAP, which is down.
func tap(ns *netns.Namespace, uid, gid, mtu int) error {
	return in(ns, func(h *netlink.Handle) error {
		if err := unix.MakeTAP(TAP, uid, gid); err != nil {
			return err
		}
		return dress(h, mtu)
	})
}

// dress gives a TAP its MAC and MTU.
func dress(h *netlink.Handle, mtu int) error {
	l, err := h.LinkByName(TAP)
	if err != nil {
		return err
	}
	if err := h.LinkSetHardwareAddr(l, gatewayMAC); err != nil {
		return fmt.Errorf("MAC of %s: %w", TAP, err)
	}
	if err := h.LinkSetMTU(l, mtu); err != nil {
		return fmt.Errorf("MTU of %s: %w", TAP, err)
	}
	return nil
}

// lead brings a slot's links up and makes its routes: now packets pass that its rules let.
func (n *Network) lead(number int, ns *netns.Namespace) error {
	address, err := n.plan.slot(number)
	if err != nil {
		return err
	}
	err = in(ns, func(h *netlink.Handle) error {
		lo, err := h.LinkByName("lo")
		if err != nil {
			return err
		}
		return errors.Join(h.LinkSetUp(lo), tapEnd().raise(h), n.slotEnd(address).raise(h))
	})
	if err != nil {
		return err
	}
	return at(n.options.hubPath(), func(_ *netns.Namespace, h *netlink.Handle) error { return n.slotHubEnd(number, address).raise(h) })
}

func tapEnd() end {
	return end{name: TAP, mac: gatewayMAC, address: gateway, peer: guest.Addr(), peerMAC: guestMAC}
}

// clear takes away what there is of a slot, its record first: what is left of it when this is cut short is half a slot.
func (n *Network) clear(number int) error {
	if err := os.Remove(n.options.slotPath(number)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	err := at(n.options.hubPath(), func(_ *netns.Namespace, h *netlink.Handle) error { return unlink(h, hubLink(number)) })
	if errors.Is(err, fs.ErrNotExist) { // without a hub there is no end of it there
		err = nil
	}
	return errors.Join(err, netns.Remove(n.options.namespace(number)))
}
