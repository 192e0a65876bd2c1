//go:build linux

// Package snapstore keeps snapshots of machines on disk, and brings them from host to host.
//
// There are only four types. A [Store] is a directory of snapshots, a [Manifest] what is written down of one, a [Draft] one that is being made, and a [Hold] keeps one from being deleted.
//
//	DIR/names/MACHINE/SNAPSHOT   symbolic link to ../../all/UID: the one place where a name stands
//	DIR/all/UID/                 manifest.json, state, memory, disk, and what is kept beside them: flat, checked.json, workingset
//	DIR/all/UID/lock             held by who uses the snapshot, and alone by who deletes it
//	DIR/new/UID/                 a draft; its lock is its maker's
//
// # Caveats
//
// The name is the commit point: what stands without one is a leftover, and is removed by whoever finds it without a holder.
//
// Files are this process's user's, 0444, and are never changed, so that they can be hard-linked into jails. Their directories are 0700.
//
// A diff's memory has only what was written since its parent, at its place, and else holes. A VMM needs all of it in one file: [Store.Memory] makes that once.
package snapstore
