//go:build linux

package network

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"syscall"

	"github.com/vishvananda/netlink"
)

// ID returns what tells things on the host of a state directory from those of another, by its path.
func ID(stateDir string) string {
	const size = 4
	sum := sha256.Sum256([]byte(stateDir))
	return hex.EncodeToString(sum[:size])
}

// View is a network, whether it is made or not, and what the host does with its packets, as far as links and routes say.
type View struct {
	Info          // Of one that is not made: Link, Uplink, and Subnet where the options have one.
	Made     bool // There is a file that says what it is; all else may be gone.
	Table    string
	Machines int // That have a slot, or had one that is kept.

	LinkIndex, UplinkIndex int    // 0: there is no such link.
	Default                string // The link that the host's routes lead out by. Empty: none.
	Machine                netip.Addr
	Back                   string // The link that the host's routes lead to the address Machine by. Empty: none.
	Conflict               error  // Why the subnet can't be used, or should not be any more.
}

// Look makes nothing and changes nothing.
func Look(o Options) (v View, err error) {
	if err := o.check(); err != nil {
		return v, err
	}
	was, err := loadRecord(o.recordPath())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return v, err
	}
	if v.Made = err == nil; !v.Made {
		was = record{ID: o.ID, Subnet: o.Subnet}
	}
	n := Network{options: Options{ID: was.ID}, record: was, plan: plan{was.Subnet}}
	v.Info, v.Table = Info{Subnet: was.Subnet, Link: n.options.linkName()}, "microvm-"+was.ID
	if v.Made {
		v.Info = n.Info()
	}
	entries, err := os.ReadDir(o.records())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return v, err
	}
	v.Machines = len(entries)
	return v, in(o.Host, func(h *netlink.Handle) error { return v.look(h, o) })
}

func (v *View) look(h *netlink.Handle, o Options) (err error) {
	if v.Default, _, err = uplink(h, ""); err != nil {
		return err
	}
	if v.Uplink, _, err = uplink(h, o.Uplink); err != nil { // not what was written down: the next Open takes what is there then
		return err
	}
	for name, index := range map[string]*int{v.Link: &v.LinkIndex, v.Uplink: &v.UplinkIndex} {
		if *index, err = indexOf(h, name); err != nil {
			return err
		}
	}
	if !v.Subnet.IsValid() {
		return nil
	}
	used, err := uses(h, v.Link)
	if err != nil {
		return err
	}
	if v.Conflict = checkSubnet(v.Subnet, used); v.Conflict != nil && !v.Made {
		return nil
	}
	if v.Machine, err = (plan{v.Subnet}).slot(0); err != nil {
		return err
	}
	v.Back, err = leads(h, v.Machine)
	return err
}

// indexOf returns a link's number, 0 when there is none.
func indexOf(h *netlink.Handle, name string) (int, error) {
	if name == "" {
		return 0, nil
	}
	l, err := h.LinkByName(name)
	if missing(err) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("link %s: %w", name, err)
	}
	return l.Attrs().Index, nil
}

// leads returns the link that an address is reached by, nothing when by none.
func leads(h *netlink.Handle, to netip.Addr) (string, error) {
	routes, err := h.RouteGet(to.AsSlice())
	if errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EINVAL) || err == nil && len(routes) == 0 {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("route to %s: %w", to, err)
	}
	l, err := h.LinkByIndex(routes[0].LinkIndex)
	if err != nil {
		return "", fmt.Errorf("route to %s: %w", to, err)
	}
	return l.Attrs().Name, nil
}
