//go:build linux

// Package imagestore keeps base images on disk, and finds them by the names that people give them.
//
// There are only three types. A [Dir] is the directory of a store. An [Entry] is an image in it: its base's path, and the [Config] that says what to run in it.
// Package image makes images and puts them here; it links much. Who only wants to find one, as package firecracker does, calls [Lookup].
//
//	DIR/images/HEX/         image.json and base.ext4; HEX is the sha256 that the image's manifest has
//	DIR/references.json     which name means which image
//	DIR/building/HEX/       an image that is being built; nobody's once the lock is free
//	DIR/blobs/ALGO-HEX      downloaded layers, kept until their image is built; .part while they come
//	DIR/locks/              held while an image is built or removed, and while names change
//
// # Caveats
//
// An image appears, whole and durable, by one rename, and goes by another. A reader needs no lock. Between its Lookup and its use of the path an image may be removed:
// [Entry.Link] tells that apart from other failures, and a base that is linked or open lives on whatever happens to its image.
//
// Each other name of a base's inode is a user: [Entry.InUse] asks the kernel, which no crash can make wrong. A reflink or a copy is no user, and needs none.
package imagestore
