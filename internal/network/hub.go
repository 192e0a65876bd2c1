//go:build linux

package network

import (
	"errors"
	"io/fs"
	"net/netip"

	"github.com/vishvananda/netlink"

	"github.com/tangle-network/microvm-runtime/internal/netns"
)

// hub makes the namespace that all slots lead to.
func (n *Network) hub() error {
	ns, err := netns.Make(n.options.hubPath())
	if errors.Is(err, fs.ErrExist) {
		ns, err = netns.Open(n.options.hubPath())
	}
	if err != nil {
		return err
	}
	defer ns.Close()
	return ns.Do(func() error { return set(router()) })
}

func (n *Network) hubRules() error {
	ns, err := netns.Open(n.options.hubPath())
	if err != nil {
		return err
	}
	defer ns.Close()
	return n.rules.hub(n, ns)
}

func (n *Network) hostRules() error { return n.rules.host(n) }

// hostEnd and hubEnd are the ends of the link between host and hub.
func (n *Network) hostEnd() end {
	return end{name: n.options.linkName(), mac: hostLinkMAC, address: single(n.plan.host()), peer: n.plan.hub(), peerMAC: hubMAC, routes: []netip.Prefix{single(n.plan.hub()), n.plan.subnet}}
}

func (n *Network) hubEnd() end {
	return end{name: link, mac: hubMAC, address: single(n.plan.hub()), peer: n.plan.host(), peerMAC: hostLinkMAC, routes: []netip.Prefix{single(n.plan.host()), everywhere}}
}

// link makes the link between host and hub, unless both ends are there.
func (n *Network) link() error {
	return at(n.options.hubPath(), func(hub *netns.Namespace, h *netlink.Handle) error {
		_, inHub := h.LinkByName(link)
		return in(n.options.Host, func(host *netlink.Handle) error {
			_, inHost := host.LinkByName(n.options.linkName())
			if inHub == nil && inHost == nil {
				return nil
			}
			// One without the other is of a hub that is gone, and going.
			if err := errors.Join(unlink(host, n.options.linkName()), unlink(h, link)); err != nil {
				return err
			}
			return pair(host, n.hostEnd(), n.hubEnd(), hub, n.record.MTU)
		})
	})
}

// routes brings both ends of that link up, and lets the host forward.
func (n *Network) routes() error {
	err := at(n.options.hubPath(), func(_ *netns.Namespace, h *netlink.Handle) error {
		lo, err := h.LinkByName("lo")
		if err != nil {
			return err
		}
		return errors.Join(h.LinkSetUp(lo), n.hubEnd().raise(h))
	})
	if err != nil {
		return err
	}
	return in(n.options.Host, func(h *netlink.Handle) error {
		name := n.options.linkName()
		own := [][2]string{
			{"ipv6/conf/" + name + "/disable_ipv6", "1"},
			{"ipv4/conf/" + name + "/route_localnet", "1"}, // what is published at 127.0.0.1 leaves by this link
		}
		if err := set(append(careful(name), own...)); err != nil {
			return err
		}
		if err := n.hostEnd().raise(h); err != nil {
			return err
		}
		return forwards()
	})
}
