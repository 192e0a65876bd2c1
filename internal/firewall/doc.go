//go:build linux

// Package firewall writes the nf_tables of the namespaces that packets of guests go through, by netlink alone.
//
// There are only three places. A [Slot] is the namespace of one machine, and there everything is decided: what the guest may send, what may reach it, how much of it,
// and that it doesn't lie about who it is. The hub, of [InstallHub], only passes packets on. A [Host] is the table in the host's own namespace: masquerade, published
// ports, and a second line of defence that nothing relies on. So whoever flushes the host's tables takes ways from guests and gives them none.
//
// testdata has what nft prints of each: read these files to see the rules.
//
// # How a slot decides
//
// On tap0's ingress, before anything else looks at a frame: only the guest's MAC, only ARP from its address for its gateway, and only IPv4 from its address, without
// VLAN, fragments and options.
//
// Each rule of a policy has a number, of [AssignIDs], which no other rule of the machine ever gets. A flow that is new is compared with the rules in order (chain
// rules), gets the first match's number as its conntrack mark, and is admitted if the caps let it. A packet of a flow that has a mark only asks whether the mark lives
// (map live). An update is one transaction that replaces both together: flows whose rule stays go on, and of all others the next packet from where the flow began is
// compared with the new policy as if it were new; packets in the other direction are dropped until that gave the flow a mark that lives. So what an update forbids
// stops in both directions, and what it allows, be it by another rule, loses nothing. A flow by a name goes on when the name's answer has expired: only new flows look
// into the name's set.
//
// Flows that come in from outside work the same way with marks of their own (map published).
//
// The token buckets, the count of connections, counters of rules and the sets of names outlive updates: chains of caps have their numbers in their names, and what is
// there under the name that it should have is left alone.
//
// # What a rule opens
//
// As in [egress]: a CIDR opens reserved addresses only when it lies wholly in a reserved range, addresses of the host and the hub only as a /32, and names open neither. Addresses
// of other machines (Config.Subnet) are opened only by a CIDR that lies in that subnet, also when the subnet is part of a bigger private range which a rule opens.
//
// # The gate for TLS
//
// With VerifySNI all TCP that a name rule allows, whatever its port, is redirected to Config.GatePort in the slot's namespace, where the gate listens; it sends on by
// sockets that have [GateMark] (SO_MARK). Both legs have the mark of the rule, so that an update cuts both. Without a gate nothing of it passes. A flow that an earlier
// CIDR rule allows is not redirected. QUIC and everything else that isn't TCP can't be looked into: with VerifySNI a name rule without a protocol is for TCP only. A
// name rule that says udp or icmp is as wide as it reads.
//
// # Caveats
//
// tap0 must be there before Install: kernels before 6.16 refuse the chain of a device that is missing, and all forget it when the device goes.
//
// Denied flows are counted by destination in a set of 1,024 places, of which each lives ten minutes after its last packet; what finds no place is dropped all the same,
// and is in the counter denied. At most ten packets a second (and 50 at once) are told live.
//
// Limits.Connections bounds entries of the connection tracking, in the slot's namespace and, by [Host.Admit], in the host's own. The kernel's count leaves out TCP's flows that have ended, whose
// entries it would keep for up to two minutes: a ct timeout makes them expire at once, and the count frees what has expired as it comes upon it. So a FIN or an acknowledgement that comes again after the
// end is in no state, and is dropped; who sent it gives up by itself. Flows that come in from outside have a cap of the same size for themselves; those that the slot drops are in the host's
// tracking all the same, as with any server that is reached from outside.
//
// Fragments are dropped at the guest's side: a datagram that is bigger than the MTU doesn't leave the guest.
//
// The kernel must be 5.15 or newer. A transaction that it refuses changes nothing.
package firewall
