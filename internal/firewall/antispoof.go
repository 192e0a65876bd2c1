//go:build linux

package firewall

import (
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// Reasons for which a frame or packet is dropped: names of counters.
const (
	DropSpoofedMAC      = "spoofed_mac"      // At tap0: the frame's source is another than the guest's MAC.
	DropSpoofedAddress  = "spoofed_address"  // At tap0: the packet's source is another than the guest's address.
	DropARP             = "arp"              // At tap0: ARP that isn't the guest's question or answer to its gateway.
	DropIPv6            = "ipv6"             // At tap0.
	DropFragment        = "fragment"         // At tap0.
	DropOptions         = "options"          // At tap0: an IPv4 header with options.
	DropOtherType       = "other_type"       // At tap0: a VLAN, or another type of frame; or one that is too short to be told.
	DropDenied          = "denied"           // No rule of the policy.
	DropNewLimit        = "new_limit"        // More new flows a second than Limits.NewPerSecond.
	DropConnectionLimit = "connection_limit" // More flows than Limits.Connections.
	DropDNSLimit        = "dns_limit"        // More packets to the resolver than Limits.DNSPerSecond.
	DropInvalid         = "invalid"          // Not part of any flow, such as a TCP segment outside of the window.
	DropStale           = "stale"            // Part of a flow that isn't allowed any more, or came in from outside without a published port.
	DropLocal           = "local"            // From outside to the slot's own addresses, or from these.
)

func frameReasons() []string {
	return []string{DropSpoofedMAC, DropSpoofedAddress, DropARP, DropIPv6, DropFragment, DropOptions, DropOtherType}
}
func packetReasons() []string {
	return []string{DropDenied, DropNewLimit, DropConnectionLimit, DropDNSLimit, DropInvalid, DropStale, DropLocal}
}

// tableName is that of our tables in namespaces that are ours alone.
const tableName = "microvm"

// antispoof is the table that looks at frames before anything else does.
func antispoof() *table {
	t := &table{Table: nftables.Table{Name: tableName, Family: nftables.TableFamilyNetdev}, counters: frameReasons()}
	ethernet := meta(expr.MetaKeyIIFTYPE, ne16(1))
	t.addBase("frames", base{nftables.ChainTypeFilter, nftables.ChainHookIngress, -500, nftables.ChainPolicyDrop, tap},
		all(ethernet, etherSource(), differs(guestMAC()), dropAs(DropSpoofedMAC)),
		all(ethernet, etherType(typeIPv4), goTo("ipv4")),
		all(ethernet, etherType(typeARP), goTo("arp")),
		all(ethernet, etherType(typeIPv6), dropAs(DropIPv6)),
		count(DropOtherType),
	)
	const question, answer = 1, 2
	guest, gateway := netip.PrefixFrom(guestAddr(), 32), netip.PrefixFrom(gatewayAddr(), 32)
	arp := func(operation uint16) match {
		return all(meta(expr.MetaKeyPROTOCOL, be16(typeARP)),
			header(0, 2), equal(be16(1)), header(2, 2), equal(be16(typeIPv4)), header(4, 1), equal([]byte{6}), header(5, 1), equal([]byte{4}), header(6, 2), equal(be16(operation)),
			header(8, 6), equal(guestMAC()), address(14, guest, expr.CmpOpEq), address(24, gateway, expr.CmpOpEq), accept(),
		)
	}
	t.add("arp", arp(question), arp(answer), count(DropARP))
	packet := meta(expr.MetaKeyPROTOCOL, be16(typeIPv4)) // always so here; nft prints the rest in its own words then
	t.add("ipv4",
		all(packet, header(12, 4), differs(addr(guestAddr())), dropAs(DropSpoofedAddress)),
		all(packet, header(6, 2), match{masked(be16(0x3fff))}, differs(be16(0)), dropAs(DropFragment)), // more fragments, or an offset
		all(packet, header(0, 1), match{masked([]byte{0x0f})}, differs([]byte{5}), dropAs(DropOptions)),
		all(packet, header(12, 4), equal(addr(guestAddr())), accept()), // only a packet that is long enough gets here
		count(DropOtherType),
	)
	return t
}

// noIPv6 is the table that lets no IPv6 in or out, should it ever be enabled.
func noIPv6() *table {
	t := &table{Table: nftables.Table{Name: tableName, Family: nftables.TableFamilyIPv6}}
	t.addBase("prerouting", base{nftables.ChainTypeFilter, nftables.ChainHookPrerouting, -500, nftables.ChainPolicyDrop, ""})
	t.addBase("output", base{nftables.ChainTypeFilter, nftables.ChainHookOutput, -500, nftables.ChainPolicyDrop, ""})
	return t
}
