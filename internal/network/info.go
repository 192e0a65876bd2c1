//go:build linux

package network

import (
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"

	"github.com/tangle-network/microvm-runtime/internal/netns"
)

// Info is what a network is.
type Info struct {
	Subnet    netip.Prefix
	Host, Hub netip.Addr // Their ends of the link between both.
	Link      string     // The host's end.
	Uplink    string     // Empty where there was none.
	MTU       int
	Slots     int // How many there are addresses for.
}

// Info returns what the network is.
func (n *Network) Info() Info {
	return Info{
		Subnet: n.plan.subnet, Host: n.plan.host(), Hub: n.plan.hub(), Link: n.options.linkName(), Uplink: n.record.Uplink, MTU: n.record.MTU, Slots: n.plan.slots(),
	}
}

// HostAddresses returns the host's own addresses as they are now.
func (n *Network) HostAddresses() (host []netip.Addr, err error) {
	err = in(n.options.Host, func(h *netlink.Handle) error {
		host, err = addresses(h)
		return err
	})
	return host, err
}

// Hub opens the namespace that all slots lead to.
func (n *Network) Hub() (*netns.Namespace, error) { return netns.Open(n.options.hubPath()) }

// Addresses are those that a slot's guest, and who speaks to it, need.
type Addresses struct {
	Slot       netip.Addr   // Outside its namespace the guest has it.
	Guest      netip.Prefix // What the guest's link has.
	Gateway    netip.Addr   // The guest's default route, and its resolver.
	GatewayMAC net.HardwareAddr
	MAC        net.HardwareAddr // The guest's.
	Hub        netip.Addr       // Where the resolver listens.
	MTU        int
}

// Addresses returns those of a slot, whether it is made or not. microvm.ErrExhausted when the subnet has none for it.
func (n *Network) Addresses(number int) (Addresses, error) {
	address, err := n.plan.slot(number)
	return Addresses{
		Slot: address, Guest: guest, Gateway: gateway.Addr(), GatewayMAC: gatewayMAC, MAC: guestMAC, Hub: n.plan.hub(), MTU: n.record.MTU,
	}, err
}
