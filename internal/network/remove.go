//go:build linux

package network

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/vishvananda/netlink"

	"github.com/tangle-network/microvm-runtime/internal/flock"
	"github.com/tangle-network/microvm-runtime/internal/netns"
	"github.com/tangle-network/microvm-runtime/internal/tidy"
)

// Remove takes a network away, and all slots: whatever of it there is, and nothing else; it may be repeated. microvm.ErrBusy, and nothing is removed, when a VMM has the TAP of one open.
func Remove(ctx context.Context, options Options) error {
	if err := options.check(); err != nil {
		return err
	}
	lock, err := flock.Lock(ctx, options.lockPath())
	if errors.Is(err, fs.ErrNotExist) { // no directory: what bears its name on the host may be there all the same
		return removeFromHost(options)
	}
	if err != nil {
		return err
	}
	defer lock.Close()
	names, err := os.ReadDir(options.namespaces())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	n := &Network{options: options}
	for _, entry := range names {
		if number, err := strconv.Atoi(entry.Name()); err == nil {
			if err := n.idle(number); err != nil {
				return err
			}
		}
	}
	if err := errors.Join(endFlowsOfSlots(options), removeFromHost(options)); err != nil {
		return err
	}
	for _, entry := range names { // with its namespace each link goes, and with it its other end
		if isNamespace(entry.Name()) {
			if err := netns.Remove(filepath.Join(options.namespaces(), entry.Name())); err != nil {
				return err
			}
		}
	}
	if _, err := tree(options.Dir).Remove(); err != nil {
		return err
	}
	return removeFromHost(options) // the table, which who watches it may have made again: see Restore
}

// endFlowsOfSlots ends what the host knows of the slots' flows.
func endFlowsOfSlots(options Options) error {
	r, err := loadRecord(options.recordPath())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return endFlowsWithin(options.Host, r.Subnet)
}

func removeFromHost(options Options) error {
	unlinked := in(options.Host, func(h *netlink.Handle) error { return unlink(h, options.linkName()) })
	if options.rules == nil {
		options.rules = installed{}
	}
	return errors.Join(unlinked, options.rules.remove(options))
}

func isNamespace(name string) bool {
	_, err := strconv.Atoi(name)
	return err == nil || name == hubName
}

// tree says what is ours in the network's directory.
func tree(dir string) tidy.Tree {
	files := func(of ...string) func(string, fs.DirEntry) bool {
		return func(_ string, entry fs.DirEntry) bool {
			for _, pattern := range of {
				if ok, _ := filepath.Match(pattern, entry.Name()); ok && entry.Type().IsRegular() {
					return true
				}
			}
			return false
		}
	}
	return tidy.Tree{Dir: dir, Marker: "network.json", Ours: files("lock", "network.json.new"), Below: []tidy.Tree{
		{Dir: "ns", Ours: files("hub", "[0-9]*")}, {Dir: "slot", Ours: files("[0-9]*.json", "[0-9]*.json.new")}, {Dir: "lock.d", Ours: files("[0-9]*")},
	}}
}
