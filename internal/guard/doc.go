//go:build linux

// Package guard answers the names that machines ask for, and looks at the TLS that they begin, in a process that outlives the driver.
//
// There are only three types. An [Entry] is what the guard must know of one machine: a file, which the driver writes before the machine runs and removes when its slot is given back.
// A [Server] serves all machines of a state directory by what their files say. A [Client] is how the driver speaks to it.
//
//	DIR/entry/ADDRESS.json   an entry, by the machine's own address
//	DIR/guard.sock           where clients are answered
//
// The guard decides nothing that the firewall has not left to it: without it no name is answered and no TLS goes to its gates, so that nothing passes; flows that have begun go on, but for
// those that a gate carries.
//
// # Caveats
//
// An entry is looked at anew for each question: what its file says holds at once. Gates are opened and closed by [Client.Sync] alone.
//
// A gate lets TLS go to an address only for a name of a rule that has opened it since the guard began, for this name or, by a wildcard, for another: after a new beginning clients must
// ask again.
package guard
