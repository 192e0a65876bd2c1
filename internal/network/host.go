//go:build linux

package network

import (
	"errors"
	"fmt"
	"net/netip"
	"syscall"

	"github.com/vishvananda/netlink"

	microvm "github.com/tangle-network/microvm-runtime"
)

const (
	leastMTU, mostMTU = 576, 65521 // What IPv4 hosts must take, and what a TAP can.
	ethernetMTU       = 1500
)

// elsewhere is an address that is reached by the host's uplink, if by anything. Nothing is sent there.
var elsewhere = netip.MustParseAddr("1.1.1.1")

// uplink returns the link that leads out, and its MTU: the one that was set, else the one that the host would use. No name when there is none.
func uplink(h *netlink.Handle, name string) (string, int, error) {
	if name != "" {
		l, err := h.LinkByName(name)
		if missing(err) {
			return "", 0, &microvm.FieldError{Field: "MICROVM_NETWORK_EGRESS", Value: name, Reason: "is no link of the host"}
		}
		if err != nil {
			return "", 0, fmt.Errorf("link %s: %w", name, err)
		}
		return name, l.Attrs().MTU, nil
	}
	routes, err := h.RouteGet(elsewhere.AsSlice())
	if errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EINVAL) || err == nil && len(routes) == 0 {
		return "", ethernetMTU, nil // no route, or one that says so
	}
	if err != nil {
		return "", 0, fmt.Errorf("find the uplink: %w", err)
	}
	l, err := h.LinkByIndex(routes[0].LinkIndex)
	if err != nil {
		return "", 0, fmt.Errorf("find the uplink: %w", err)
	}
	mtu := l.Attrs().MTU
	if of := routes[0].MTU; of > 0 && of < mtu {
		mtu = of
	}
	return l.Attrs().Name, mtu, nil
}

// uses returns the addresses that the host has a use for: all that its routes lead to, whatever table they are in, but by the default ones; own is our link.
func uses(h *netlink.Handle, own string) ([]taken, error) {
	links, err := h.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	names := map[int]string{}
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	var used []taken
	every := &netlink.Route{Table: syscall.RT_TABLE_UNSPEC}
	err = h.RouteListFilteredIter(netlink.FAMILY_V4, every, netlink.RT_FILTER_TABLE, func(r netlink.Route) bool {
		prefix, ok := prefixOf(r)
		if name := names[r.LinkIndex]; ok && name != own && prefix.Bits() > 0 && r.Type != syscall.RTN_BROADCAST {
			used = append(used, taken{prefix, describe(r, prefix, name)})
		}
		return true
	})
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	return used, nil
}

func prefixOf(r netlink.Route) (netip.Prefix, bool) {
	if r.Dst == nil {
		return netip.Prefix{}, false
	}
	a, ok := netip.AddrFromSlice(r.Dst.IP)
	ones, _ := r.Dst.Mask.Size()
	return netip.PrefixFrom(a.Unmap(), ones).Masked(), ok
}

func describe(r netlink.Route, prefix netip.Prefix, name string) string {
	what := "the route " + prefix.String()
	if r.Type == syscall.RTN_LOCAL {
		what = "the address " + prefix.Addr().String()
	}
	if name != "" {
		what += " of " + name
	}
	return what
}

// addresses returns the host's own, also that of our link, but for those of loopback.
func addresses(h *netlink.Handle) ([]netip.Addr, error) {
	list, err := h.AddrList(nil, netlink.FAMILY_V4)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var host []netip.Addr
	for _, a := range list {
		if ip, ok := netip.AddrFromSlice(a.IP.To4()); ok && !ip.IsLoopback() {
			host = append(host, ip)
		}
	}
	return host, nil
}
