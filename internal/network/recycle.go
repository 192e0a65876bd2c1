//go:build linux

package network

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"syscall"

	"github.com/vishvananda/netlink"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/netns"
	"github.com/tangle-network/microvm-runtime/internal/step"
	"github.com/tangle-network/microvm-runtime/internal/unix"
)

// errChanged says that a slot's TAP is not what it was made as.
var errChanged = errors.New("the TAP is another")

// Recycle makes a slot ready for another machine: the package's comment has the list of what it takes away. It may be repeated. microvm.ErrBusy when a VMM has its TAP open. What
// can't be made as it was is made anew; of half a slot nothing stays.
func (n *Network) Recycle(ctx context.Context, number int) error {
	lock, err := n.lock(ctx, number)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := n.recycle(number); err != nil {
		return fmt.Errorf("recycle slot %d: %w", number, err)
	}
	return nil
}

func (n *Network) recycle(number int) error {
	was, err := loadSlot(n.options.slotPath(number))
	if errors.Is(err, fs.ErrNotExist) {
		return errors.Join(n.forget(number), n.clear(number))
	}
	if err != nil {
		return err
	}
	if err = n.whole(number, was); err == nil {
		err = n.clean(number, was)
	}
	if !errors.Is(err, errChanged) && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := n.forget(number); err != nil {
		return err
	}
	_, err = n.remake(number, was.UID, was.GID)
	return err
}

// clean takes away what is in a slot's namespace, and what the host knows of it.
func (n *Network) clean(number int, was slotRecord) error {
	return at(n.options.namespace(number), func(ns *netns.Namespace, h *netlink.Handle) error {
		s := step.Begin("recycle", n.options.Hook)
		for _, do := range []struct {
			name string
			do   func() error
		}{
			{"tap", func() error { return resetTAP(h, was) }},
			{"rules", func() error { return n.rules.slot(n, ns, number) }},
			{"flows", endAllFlows},
			{"neighbours", func() error { return n.neighbours(h, number) }},
			{"host", func() error { return n.forget(number) }},
		} {
			if err := s.Do(do.name, do.do, nil); err != nil {
				return err
			}
		}
		return nil
	})
}

// forget takes away what the host knows of a slot's machine.
func (n *Network) forget(number int) error {
	address, err := n.plan.slot(number)
	if err != nil {
		return err
	}
	if err := n.rules.unpublish(n, address); err != nil {
		return err
	}
	return endFlows(n.options.Host, address)
}

// resetTAP makes the TAP of the namespace that the thread is in what it was. errChanged when it is another.
func resetTAP(h *netlink.Handle, was slotRecord) error {
	l, err := h.LinkByName(TAP)
	if missing(err) {
		return errChanged
	}
	if err != nil {
		return err
	}
	is, ok := l.(*netlink.Tuntap)
	const form = netlink.TUNTAP_NO_PI | netlink.TUNTAP_VNET_HDR
	if !ok || is.NonPersist || int(is.Owner) != was.UID || int(is.Group) != was.GID || is.Mode != netlink.TUNTAP_MODE_TAP || is.Flags != form {
		return errChanged
	}
	if err := unix.ResetTAP(TAP); errors.Is(err, syscall.EBUSY) {
		return fmt.Errorf("%w: its TAP is open", microvm.ErrBusy)
	} else if err != nil {
		return err
	}
	return dress(h, was.MTU)
}

// neighbours forgets those that are not ours, and says again who ours are.
func (n *Network) neighbours(h *netlink.Handle, number int) error {
	list, err := h.NeighList(0, netlink.FAMILY_V4)
	if err != nil {
		return fmt.Errorf("list neighbours: %w", err)
	}
	for _, neighbour := range list {
		ip, _ := netip.AddrFromSlice(neighbour.IP.To4())
		if ip == guest.Addr() || ip == n.plan.hub() {
			continue
		}
		if err := h.NeighDel(&neighbour); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("forget neighbour %s: %w", neighbour.IP, err)
		}
	}
	address, err := n.plan.slot(number)
	if err != nil {
		return err
	}
	return errors.Join(tapEnd().raise(h), n.slotEnd(address).raise(h))
}

// idle returns microvm.ErrBusy when the slot's TAP is open.
func (n *Network) idle(number int) error {
	err := at(n.options.namespace(number), func(*netns.Namespace, *netlink.Handle) error {
		f, err := unix.OpenTAP(TAP)
		if err != nil {
			return err
		}
		return f.Close()
	})
	switch {
	case errors.Is(err, syscall.EBUSY):
		return fmt.Errorf("%w: the TAP of slot %d is open", microvm.ErrBusy, number)
	case errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.EINVAL): // no namespace, or a TAP of another form, which nobody of ours has open
		return nil
	}
	return err
}
