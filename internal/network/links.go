//go:build linux

package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/tangle-network/microvm-runtime/internal/netns"
)

// patience is how long the kernel may take for one answer.
const patience = 30 * time.Second

// in runs f on a thread in the namespace, with a socket that links and routes are asked for by. None is this process's.
func in(ns *netns.Namespace, f func(*netlink.Handle) error) error {
	return ns.Do(func() error {
		h, err := netlink.NewHandle(syscall.NETLINK_ROUTE)
		if err != nil {
			return os.NewSyscallError("netlink", err)
		}
		defer h.Close()
		if err := h.SetSocketTimeout(patience); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
		return f(h)
	})
}

// at is in for the namespace at a path.
func at(path string, f func(ns *netns.Namespace, h *netlink.Handle) error) error {
	ns, err := netns.Open(path)
	if err != nil {
		return err
	}
	defer ns.Close()
	return in(ns, func(h *netlink.Handle) error { return f(ns, h) })
}

func missing(err error) bool {
	return errors.As(err, &netlink.LinkNotFoundError{}) || errors.Is(err, syscall.ENODEV)
}

// unlink removes a link; nil when there is none.
func unlink(h *netlink.Handle, name string) error {
	l, err := h.LinkByName(name)
	if err == nil {
		err = h.LinkDel(l)
	}
	if err != nil && !missing(err) {
		return fmt.Errorf("remove link %s: %w", name, err)
	}
	return nil
}

// end is one end of a link between two namespaces, and what is said of the other.
type end struct {
	name    string
	mac     net.HardwareAddr
	address netip.Prefix // Not valid: none.
	peer    netip.Addr   // The neighbour at the other end.
	peerMAC net.HardwareAddr
	routes  []netip.Prefix // What is reached by the neighbour.
}

// pair makes a link whose other end is in another namespace; both are down.
func pair(h *netlink.Handle, this, other end, there *netns.Namespace, mtu int) error {
	attributes := netlink.NewLinkAttrs()
	attributes.Name, attributes.HardwareAddr, attributes.MTU = this.name, this.mac, mtu
	veth := netlink.NewVeth(attributes)
	veth.PeerName, veth.PeerHardwareAddr, veth.PeerMTU, veth.PeerNamespace = other.name, other.mac, uint32(mtu), netlink.NsFd(there.FD())
	if err := h.LinkAdd(veth); err != nil {
		return fmt.Errorf("make link %s: %w", this.name, err)
	}
	return nil
}

// raise gives an end of a link its address, neighbour and routes, as often as it is called, and brings it up.
func (e end) raise(h *netlink.Handle) error {
	l, err := h.LinkByName(e.name)
	if err != nil {
		return fmt.Errorf("link %s: %w", e.name, err)
	}
	index := l.Attrs().Index
	if e.address.IsValid() {
		if err := h.AddrReplace(l, &netlink.Addr{IPNet: ipNet(e.address), Scope: int(netlink.SCOPE_UNIVERSE)}); err != nil {
			return fmt.Errorf("address %s of link %s: %w", e.address, e.name, err)
		}
	}
	if l.Attrs().Flags&net.FlagUp == 0 {
		if err := h.LinkSetUp(l); err != nil {
			return fmt.Errorf("link %s up: %w", e.name, err)
		}
	}
	if e.peer.IsValid() {
		neighbour := &netlink.Neigh{LinkIndex: index, Family: syscall.AF_INET, State: netlink.NUD_PERMANENT, IP: e.peer.AsSlice(), HardwareAddr: e.peerMAC}
		if err := h.NeighSet(neighbour); err != nil {
			return fmt.Errorf("neighbour %s of link %s: %w", e.peer, e.name, err)
		}
	}
	for _, to := range e.routes {
		if err := e.lead(h, index, to); err != nil {
			return err
		}
	}
	return nil
}

// errTaken says that a range of addresses leads elsewhere.
var errTaken = errors.New("others have a route for it")

// lead makes a route, and replaces none: in the host's namespace it may be somebody's.
func (e end) lead(h *netlink.Handle, index int, to netip.Prefix) error {
	err := h.RouteAdd(e.route(index, to))
	if errors.Is(err, syscall.EEXIST) {
		way := to.Addr()
		if to == everywhere {
			way = elsewhere
		}
		var leads []netlink.Route
		if leads, err = h.RouteGet(way.AsSlice()); err == nil && (len(leads) == 0 || leads[0].LinkIndex != index) {
			err = errTaken
		}
	}
	if err != nil {
		return fmt.Errorf("route %s by link %s: %w", to, e.name, err)
	}
	return nil
}

// route leads to the neighbour, whom no other route needs to reach.
func (e end) route(index int, to netip.Prefix) *netlink.Route {
	r := &netlink.Route{LinkIndex: index, Dst: ipNet(to), Gw: e.peer.AsSlice(), Flags: int(netlink.FLAG_ONLINK)}
	if to.Addr() == e.peer {
		r.Gw, r.Flags, r.Scope = nil, 0, netlink.SCOPE_LINK
	}
	return r
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

var everywhere = netip.MustParsePrefix("0.0.0.0/0")
