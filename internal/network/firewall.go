//go:build linux

package network

import (
	"net/netip"

	"github.com/tangle-network/microvm-runtime/internal/netns"
)

// rules are what package firewall does for this one.
type rules interface {
	slot(n *Network, ns *netns.Namespace, number int) error // all is denied, as in a new one
	hub(n *Network, ns *netns.Namespace) error
	host(n *Network) error
	unpublish(n *Network, slot netip.Addr) error
	remove(o Options) error
}

type installed struct{}

func (installed) slot(*Network, *netns.Namespace, int) error { return nil }
func (installed) hub(*Network, *netns.Namespace) error       { return nil }
func (installed) host(*Network) error                        { return nil }
func (installed) unpublish(*Network, netip.Addr) error       { return nil }
func (installed) remove(Options) error                       { return nil }
