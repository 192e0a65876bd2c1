//go:build linux

// Package unix is the only door of this module's host side to golang.org/x/sys/unix. It has no types of its own beyond what the
// kernel has: each function is one system call, or one read of /proc, with Go's errors and descriptors.
package unix
