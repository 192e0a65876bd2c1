//go:build linux

package network

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/tangle-network/microvm-runtime/internal/netns"
	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
)

// rig is a stand-in for the host, with an uplink that leads nowhere, and the options of a network on it.
type rig struct {
	*testing.T
	host    *netns.Namespace
	options Options
}

const uplinkMTU = 1400

func newRig(t *testing.T) *rig {
	t.Helper()
	ring.Host(t)
	host, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{T: t, host: host, options: Options{Dir: filepath.Join(t.TempDir(), "network"), ID: "0123abcd", Host: host}}
	t.Cleanup(func() {
		if err := Remove(context.Background(), r.options); err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(r.options.Dir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the directory is left: %v", err)
		}
		host.Close()
	})
	r.link("wan0", uplinkMTU, "192.0.2.2/24")
	r.inHost(func(h *netlink.Handle) error {
		return h.RouteAdd(&netlink.Route{Dst: ipNet(everywhere), Gw: netip.MustParseAddr("192.0.2.1").AsSlice()})
	})
	return r
}

func (r *rig) inHost(f func(*netlink.Handle) error) {
	r.Helper()
	if err := in(r.host, f); err != nil {
		r.Fatal(err)
	}
}

// link makes one of the stand-in's.
func (r *rig) link(name string, mtu int, address string) {
	r.Helper()
	r.inHost(func(h *netlink.Handle) error {
		attributes := netlink.NewLinkAttrs()
		attributes.Name, attributes.MTU = name, mtu
		l := netlink.NewVeth(attributes)
		l.PeerName = "x" + name
		return errors.Join(h.LinkAdd(l), h.LinkSetUp(l), h.AddrAdd(l, &netlink.Addr{IPNet: ipNet(netip.MustParsePrefix(address))}))
	})
}

func (r *rig) open() *Network {
	r.Helper()
	n, err := Open(r.Context(), r.options)
	if err != nil {
		r.Fatal(err)
	}
	return n
}

// user is who may open the TAP of a slot.
func user(number int) int { return 100_000 + number }

func (r *rig) make(n *Network, number int) *Slot {
	r.Helper()
	s, err := n.Make(r.Context(), number, user(number), user(number))
	if err != nil {
		r.Fatal(err)
	}
	return s
}

// world is what there is in a namespace, as text: links, addresses, routes, neighbours. Numbers that are different each time are left out.
func world(t *testing.T, ns *netns.Namespace) string {
	t.Helper()
	var lines []string
	err := in(ns, func(h *netlink.Handle) error {
		links, err := h.LinkList()
		if err != nil {
			return err
		}
		names := map[int]string{}
		for _, l := range links {
			a := l.Attrs()
			names[a.Index] = a.Name
			mac := a.HardwareAddr.String()
			if !strings.HasPrefix(mac, "06:00:ac:") { // the kernel has chosen it
				mac = "other"
			}
			lines = append(lines, fmt.Sprintf("link %s %s mtu %d %s %s", a.Name, l.Type(), a.MTU, mac, strings.Replace(a.Flags.String(), "|running", "", 1)))
			if tap, ok := l.(*netlink.Tuntap); ok {
				lines = append(lines, fmt.Sprintf("tap %s owner %d group %d flags %#x transient %t", a.Name, tap.Owner, tap.Group, int(tap.Flags), tap.NonPersist))
			}
		}
		addresses, err := h.AddrList(nil, netlink.FAMILY_ALL)
		if err != nil {
			return err
		}
		for _, a := range addresses {
			lines = append(lines, fmt.Sprintf("address %s of %s", a.IPNet, names[a.LinkIndex]))
		}
		routes, err := h.RouteList(nil, netlink.FAMILY_V4)
		if err != nil {
			return err
		}
		for _, route := range routes {
			lines = append(lines, fmt.Sprintf("route %s by %s of %s flags %#x", route.Dst, route.Gw, names[route.LinkIndex], route.Flags&^0x10))
		}
		neighbours, err := h.NeighList(0, netlink.FAMILY_V4)
		for _, n := range neighbours {
			if n.State != netlink.NUD_NOARP {
				lines = append(lines, fmt.Sprintf("neighbour %s %s of %s state %#x", n.IP, n.HardwareAddr, names[n.LinkIndex], n.State))
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n") + "\n"
}

// worldAt is world of a namespace at a path.
func worldAt(t *testing.T, path string) string {
	t.Helper()
	ns, err := netns.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	return world(t, ns)
}
