//go:build linux

// Package agent is the guest's side of package wire.
//
// There are only two things: a [Server], which executes commands and copies files for the host, and [Boot], which makes a running system of a kernel, a read-only base and an empty
// layer when the agent is the first process.
//
// # Caveats
//
// A process belongs to the agent and not to a connection: its output waits, in a buffer of wire.Window bytes a stream, until the host has
// acknowledged it. When the buffer is full the process blocks.
//
// A process with a terminal has its slave as all three streams; the agent keeps one too until the process has ended, so that the terminal ends no sooner.
//
// What is executed is the leader of a session, and of a process group, of its own. SIGKILL and time-outs end every process of the session; other signals go to the
// process group. Who makes a session of its own has left both. The leader is not reaped before its output has ended, so that its number stays its own. Linux 5.3 is
// needed, for pidfds.
//
// What is executed is in a cgroup of its own, with all that comes of it, where the first process could make one: for a snapshot that is frozen. Who waits until it is not holds no lock, as the
// agent answers meanwhile. What makes a clone its own is outside of it.
package agent
