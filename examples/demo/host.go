//go:build linux

package main

import (
	"fmt"
	"strings"

	"github.com/tangle-network/microvm-runtime/internal/inventory"
)

// host is what there is on this host: all files below the demo's directory, processes of Firecracker, mounts and loop devices that have to do with it, cgroups of the demo's
// slice, and all network namespaces and links. What is printed of it is all of it.
type host struct {
	census inventory.Options
	before inventory.Census
}

func lookAt(dir, slice string) (*host, error) {
	h := &host{census: inventory.Options{Slice: slice, Under: dir, Roots: []string{dir}}}
	before, err := inventory.Take(h.census)
	h.before = before
	return h, err
}

func (h *host) changes() (inventory.Changes, error) {
	now, err := inventory.Take(h.census)
	return inventory.Diff(h.before, now), err
}

// print prints what is new.
func (h *host) print() error {
	changes, err := h.changes()
	fmt.Print(changes)
	return err
}

// ofDriver says whether something is the driver's, for the next machine: files, and its network, whose slots stay made.
func ofDriver(item inventory.Item) bool {
	switch item.Kind {
	case "file", "dir", "symlink":
		return true
	case "link":
		return strings.HasPrefix(item.Name, "mvm-")
	case "mount":
		return strings.Contains(item.Name, "/run/network/ns/")
	}
	return false
}

// machineGone prints what is new, which is the driver's, and fails when anything of it is a machine's: what has its uid, or is no driver's.
func (h *host) machineGone(uid string) error {
	changes, err := h.changes()
	if err != nil {
		return err
	}
	fmt.Print(changes)
	for _, item := range append(changes.Added, changes.Removed...) {
		if !ofDriver(item) || strings.Contains(item.Name, uid) {
			return fmt.Errorf("%s %s is left of the machine", item.Kind, item.Name)
		}
	}
	fmt.Println("(files of the driver, for the next machine: its store of kernels and images, its books, and the journal of what has happened)")
	return nil
}

// asBefore fails when anything differs from what was before the demo.
func (h *host) asBefore() error {
	changes, err := h.changes()
	if err != nil {
		return err
	}
	if !changes.Empty() {
		return fmt.Errorf("something is left:\n%s", changes)
	}
	fmt.Println("(empty)")
	return nil
}
