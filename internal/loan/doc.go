//go:build linux

// Package loan lends files and block devices of the user's to machines, each to one machine at a time.
//
// There are only three types: a [Thing] is a file or a device as it was found, a [Borrower] is whom it is lent to, a [Book] says who has what.
//
//	DIR/out/KEY   a loan: who has it, and whose it was before; KEY tells the thing from all others
//	DIR/lock      held while a loan is made or ended
//
// # Caveats
//
// A loan is on disk before a file's owner is changed, so that whoever comes after a crash can change it back. It ends by Return, or when somebody else wants the
// thing and its borrower is gone.
//
// A file is known by device and inode, and by the inode alone on the book's own file system, whose number may be another after a reboot. A block device is known by its own
// number, whatever node leads to it.
//
// Two books know nothing of each other.
package loan
