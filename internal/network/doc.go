//go:build linux

// Package network gives each machine's slot a network namespace with a TAP in it, and leads all of them to the host's uplink.
//
// There are only two types: a [Network] is what a state directory has on the host, a [Slot] what a machine has. [Open] makes the one or adopts it, [Network.Make] the other.
//
//	guest 172.16.0.2/30 — tap0 172.16.0.1/30 [slot's namespace] up0 — sN [hub's namespace] up0 — mvm-ID [host] — uplink
//
// What a guest sees is the same in each slot; the slot's own address is that of its end of the link to the hub, and outside its namespace the guest has it. Slots are numbers:
// those that package slot leases. The host sees one link, one route, and one table, however many slots there are.
//
//	DIR/network.json   what the network is; written before the first thing is made
//	DIR/lock           held while the hub and the host's side are made
//	DIR/ns/hub, ns/N   namespaces, see package netns
//	DIR/slot/N.json    written when all of a slot is made: a slot without it is half a slot, and made again
//	DIR/lock.d/N       held while a slot is made, recycled or removed
//
// DIR is below the socket directory, in memory: it ends with the host's boot, like all that it describes.
//
// # Recycling
//
// What a machine leaves in its slot, and may not reach the next that has it, is what [Network.Recycle] takes away:
//
//  1. the TAP must be free: a VMM that still has it open is an error, and nothing is recycled
//  2. what is published to the slot, on the host
//  3. the slot's rules: all is denied
//  4. the elements of its sets: answers of names, what was denied
//  5. its counters
//  6. its flows: the connection tracking of its namespace, all of it
//  7. its flows on the host: the entries whose source, or translated destination, is the slot's address
//  8. neighbours that are not ours
//  9. what a VMM can set on its TAP: filters, header, offloads, buffer, MAC, MTU. One that it has replaced or given away is made anew, with the whole slot
//
// A link's own counters go on: who shows them subtracts what they were. Which returned slot is leased next, and so how long one rests, package slot says: the one that was returned first.
//
// # Caveats
//
// The host may be any network namespace: [Options].Host. Only it, and the namespaces at DIR/ns, are touched; in it: the link mvm-ID with its route, the table microvm-ID, and
// ip_forward, without which no answer would reach a slot. Removing a network leaves that on, since somebody else may need it by then.
//
// All processes that use a state directory must be in one mount namespace; package netns says why.
package network
