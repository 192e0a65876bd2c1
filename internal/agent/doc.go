//go:build linux

// Package agent is the guest's side of package wire.
//
// There are only two things: a [Server], which executes commands for the host, and [Boot], which makes a running system of a kernel, a read-only base and an empty
// layer when the agent is the first process.
//
// # Caveats
//
// A process belongs to the agent and not to a connection: its output waits, in a buffer of wire.Window bytes a stream, until the host has
// acknowledged it. When the buffer is full the process blocks.
//
// What is executed is the leader of a session of its own. Signals and time-outs go to the whole session, as far as its members have not left it.
package agent
