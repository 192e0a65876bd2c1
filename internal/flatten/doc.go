// Package flatten makes one tree of files of the layers of an OCI image, as a tar extractor run by root over one layer after the other would, without touching a file system.
//
// There are only two types: a [Layer] is a tar, compressed or not; a [Tree] is what they come to. [Read] goes through all layers once and keeps what is known of each file but its
// content; [Tree.Walk] goes through them again and gives each file with its content, in an order that can be written without looking back: directories before what is in them, the
// first name of a file before its other names.
//
// # Caveats
//
// Layers are input of strangers. No name leads out of the tree, "..", absolute names and symbolic links included: they mean what they would mean with the tree as root directory.
// What is read is held to [Limits], and each layer to its DiffID.
//
// A whiteout removes what layers below brought, never what its own layer did, whatever their order. A hard link means the file that its target's name means at that point.
// Directories that no layer describes are 0755, root's and of 1970.
package flatten
