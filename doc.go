// Package microvm is a runtime for microVMs: it creates, starts, stops, pauses, watches and destroys them.
//
// # Basics
//
// There are only a few types. A [Runtime] stands on a [Driver] and makes and finds machines; package firecracker
// has the driver for the real thing, package inmemory a double for tests. A [Spec] is plain data that says what a
// machine shall be. A [VM] is a handle on one machine: it holds the machine's uid and no resource, so it can be
// copied, shared between goroutines and dropped. An [Info] says what a machine is now, an [Exit] how its last run
// ended, an [Event] what changed.
//
// # Life of a machine
//
//	Create → created → Start → running ⇄ paused → Stop → stopped → Start → running …
//	any state → Destroy → gone, and the name is free again
//
// Machines outlive the process that made them. Any process that opens the same state directory can list them,
// execute in them and end them; [Runtime.Close] ends this process's goroutines and leaves the machines running.
//
// A machine that ends by itself, also by a guest's reboot, is stopped with its [Exit].
//
// # Names and uids
//
// A name is 1 to 64 of A–Z, a–z, 0–9, dot, underscore and dash, not starting with a dot or a dash. It is only a name: every
// resource of a machine is known by its uid, which never changes and is never used again. A handle holds
// the uid, so it never comes to mean another machine, whatever is renamed or destroyed meanwhile.
//
// # Caveats
//
// A context bounds the call, never the machine: cancelling Create leaves nothing, cancelling Start or Stop leaves a
// state that List tells truly.
//
// Stop is a power-off: what was in the guest's memory is gone. Pause keeps it.
//
// A verb that the driver does not have answers [ErrUnsupported].
package microvm
