//go:build linux

// Package helper keeps processes that serve machines while no driver lives: each is the operator's own program, executed again.
//
// There are only four types. A [Kind] is something that can be served, such as names. A [Spec] says which kind is to be served for which directory. A [Handle] is a helper
// that serves, whoever has started it. A [Session] is what a helper knows of itself.
//
// [Main] is the first line of a program's main: where the process was started as a helper it serves, and never returns. [Start] sees to it that exactly one helper of a kind
// lives for a directory: it adopts the one that is there, replaces one of another version or configuration, and starts one where there is none.
// [Ask] and [Answer] are how others speak with a helper that has a socket.
//
//	DIR/KIND.start   locked while a helper is started, stopped, or leaves because nothing needs it
//	DIR/KIND.lock    locked by the helper, as long as it lives
//	DIR/KIND.json    who it is; written when it serves
//	DIR/KIND.log     what it says; begun anew when it has grown to a megabyte
//
// # Caveats
//
// A helper is a session of its own, and gets no signal and no environment of its starter's. It stays in its starter's cgroup unless Spec.Cgroup says another one: what kills a
// whole cgroup, as systemd does for a service that stops, kills it too.
//
// Two programs of different versions that both call Start replace each other's helper each time.
//
// A helper that ends is started again by the next Start, and by nothing else.
//
// Who needs a helper of a kind with Kind.Needed makes the need visible before Start: a helper that leaves looks once more, while nobody can Start.
package helper
