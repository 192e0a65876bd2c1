//go:build linux

package network

import "net/netip"

// What is the same inside each machine, as its VMM and its kernel are told it. The agent knows it by itself.
const (
	Interface = "eth0"              // The guest's, and the VMM's name of it.
	GuestMAC  = "06:00:ac:10:00:02" // As text.
	// KernelArg has a kernel with CONFIG_IP_PNP set the address, the route and, in /proc/net/pnp, the resolver up (Documentation/admin-guide/nfs/nfsroot.rst).
	KernelArg = "ip=172.16.0.2::172.16.0.1:255.255.255.252::eth0:off:172.16.0.1"
)

// Inside returns the addresses that are the same inside each machine. Those of the slot are not set.
func Inside() Addresses {
	return Addresses{Guest: guest, Gateway: gateway.Addr(), GatewayMAC: gatewayMAC, MAC: guestMAC}
}

// CheckSubnet says what is wrong with a subnet wherever it is: nil, or a *microvm.FieldError. That it overlaps nothing of the host's, Open says.
func CheckSubnet(subnet netip.Prefix) error { return checkSubnet(subnet, nil) }

// HubPath returns where the namespace that all slots lead to is.
func (n *Network) HubPath() string { return n.options.hubPath() }
