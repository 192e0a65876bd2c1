//go:build linux

// Package foreign tells what firewalls of other people do with packets that the host forwards. It reads rules, and never writes any.
//
// There are only three types to know: [Read] returns a [Ruleset], whose [Chain]s are all that a forwarded IPv4 packet meets, and each chain has a [Judgement] of a [Packet].
//
// A packet must get through every base chain of the hook: to be accepted by one means nothing to the next, to be dropped by one is the end. So each is judged for itself.
//
// # Caveats
//
// A packet is judged by what is known of it: its links, the addresses that are given, and its state of connection tracking. A rule that asks for something else, such as a port or a
// mark, or that this package can't read, is taken as one that does not match: what is judged is the packet that no rule is specially about.
//
// Only the hook forward is looked at. A set that is bigger than the kernel lists at once, or changes meanwhile, may be incomplete.
package foreign
