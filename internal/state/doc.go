//go:build linux

// Package state keeps what is known of machines on disk, so that any process of the host can work on any of them.
//
// There are only five types. A [Dir] is the state directory and its volatile counterpart, a [Layout] which options belong to it. A [Lock] is the right to change one machine. A
// [Record] is what must survive power loss, a [Run] what dies with the host's present boot.
//
//	STATE_DIR/version              the number of the records' version; it also marks the directory as ours
//	STATE_DIR/layout.json          which options belong to it
//	STATE_DIR/subnet.json          the machines' addresses
//	STATE_DIR/names/NAME           symbolic link to ../machines/UID: the one place where a name stands
//	STATE_DIR/machines/UID/        lock, record.json, started, exit.json, and the machine's own disk
//	SOCKET_DIR/owner.json          whose the directory is: the state directory's path
//	SOCKET_DIR/.run/UID/           run.json, staged, and the console
//
// # Caveats
//
// A directory that holds anything and lacks its marker is somebody else's: it is refused and not touched. Nor is what others put into ours.
//
// A record is replaced by rename, so a reader needs no lock and sees the old one or the new one, whole. The durable record, the names, the machines' directories, the layout and the markers are
// fsynced; exit.json and started are not: a torn one says so. What the volatile record says holds only under the boot id that it carries. A durable record beside which `staged` stands
// is of a machine that is being created, whatever it says.
//
// No symbolic link is followed below the directories, and nothing that belongs to another user is believed.
//
// A record of a newer version is refused with microvm.ErrIncompatible and never rewritten.
package state
