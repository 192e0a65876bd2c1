//go:build linux

package network

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"

	"github.com/tangle-network/microvm-runtime/internal/flock"
	"github.com/tangle-network/microvm-runtime/internal/netns"
)

// Slot is what one machine has: a namespace with a TAP that leads to the guest.
type Slot struct {
	Number    int
	UID, GID  int // Who may open the TAP.
	Namespace string
	Addresses
}

// Make returns the slot of a number, whose TAP a user and group may open: the one that is ready, else it is made. What a process that was killed has left of it is made again, as
// is one of another user's. All is denied in it until its rules are set.
func (n *Network) Make(ctx context.Context, number, uid, gid int) (*Slot, error) {
	lock, err := n.lock(ctx, number)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	s, err := n.Slot(number)
	if err == nil && s.UID == uid && s.GID == gid {
		return s, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return n.remake(number, uid, gid)
}

// lock is held by who changes a slot.
func (n *Network) lock(ctx context.Context, number int) (*os.File, error) {
	if _, err := n.plan.slot(number); err != nil {
		return nil, err
	}
	return flock.Lock(ctx, filepath.Join(n.options.locks(), strconv.Itoa(number)))
}

// Slot returns a slot that was made. fs.ErrNotExist when there is none, or not all of it.
func (n *Network) Slot(number int) (*Slot, error) {
	a, err := n.Addresses(number)
	if err != nil {
		return nil, err
	}
	r, err := loadSlot(n.options.slotPath(number))
	if err != nil {
		return nil, err
	}
	if err := n.whole(number, r); err != nil {
		return nil, fmt.Errorf("slot %d: %w", number, err)
	}
	a.MTU = r.MTU
	return &Slot{Number: number, UID: r.UID, GID: r.GID, Namespace: n.options.namespace(number), Addresses: a}, nil
}

// whole returns fs.ErrNotExist unless the slot's links are there. That to the hub has another end there as long as the hub is the one that it was made in.
func (n *Network) whole(number int, r slotRecord) error {
	hub, err := n.hubIdentity()
	if err != nil {
		return err
	}
	if hub != r.Hub {
		return fmt.Errorf("it leads to a hub that is gone: %w", fs.ErrNotExist)
	}
	return at(n.options.namespace(number), func(_ *netns.Namespace, h *netlink.Handle) error {
		for _, name := range []string{link, TAP} {
			if _, err := h.LinkByName(name); missing(err) {
				return fmt.Errorf("link %s: %w", name, fs.ErrNotExist)
			} else if err != nil {
				return err
			}
		}
		return nil
	})
}

// hubIdentity tells the hub's namespace from all others that there are.
func (n *Network) hubIdentity() (string, error) {
	info, err := os.Stat(n.options.hubPath())
	if err != nil {
		return "", err
	}
	stat := info.Sys().(*syscall.Stat_t)
	return fmt.Sprintf("%d:%d", stat.Dev, stat.Ino), nil
}

// hubLink returns the name of the hub's end of the link to a slot.
func hubLink(number int) string { return "s" + strconv.Itoa(number) }

// Remove takes a slot away, with all that of a machine Recycle takes; nil when there is none. microvm.ErrBusy when a VMM has its TAP open.
func (n *Network) Remove(ctx context.Context, number int) error {
	lock, err := n.lock(ctx, number)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := n.idle(number); err != nil {
		return err
	}
	if err := n.forget(number); err != nil {
		return err
	}
	if err := n.clear(number); err != nil {
		return fmt.Errorf("remove slot %d: %w", number, err)
	}
	return os.Remove(lock.Name())
}

// Slots returns the numbers of the slots that are made, in order.
func (n *Network) Slots() ([]int, error) {
	entries, err := os.ReadDir(n.options.records())
	if err != nil {
		return nil, err
	}
	var numbers []int
	for _, entry := range entries {
		name, ok := strings.CutSuffix(entry.Name(), ".json")
		if number, err := strconv.Atoi(name); ok && err == nil {
			numbers = append(numbers, number)
		}
	}
	slices.Sort(numbers)
	return numbers, nil
}
