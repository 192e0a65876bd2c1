//go:build linux

package network

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/vishvananda/netlink"

	"github.com/tangle-network/microvm-runtime/internal/netns"
	"github.com/tangle-network/microvm-runtime/internal/unix"
)

// flow makes an entry of connection tracking in the namespace that the thread is in: "FROM>TO ANSWERS_FROM>ANSWERS_TO".
func flow(text string) error {
	a := strings.FieldsFunc(text, func(r rune) bool { return r == ' ' || r == '>' })
	tuple := func(from, to string, source, destination uint16) netlink.IPTuple {
		return netlink.IPTuple{SrcIP: net.ParseIP(from).To4(), DstIP: net.ParseIP(to).To4(), SrcPort: source, DstPort: destination, Protocol: syscall.IPPROTO_UDP}
	}
	f := &netlink.ConntrackFlow{FamilyType: syscall.AF_INET, TimeOut: 1000, Forward: tuple(a[0], a[1], 1000, 2000), Reverse: tuple(a[2], a[3], 2000, 1000)}
	return netlink.ConntrackCreate(netlink.ConntrackTable, netlink.FAMILY_V4, f)
}

// flows returns those of the namespace that the thread is in.
func flows() (map[string]bool, error) {
	list, err := netlink.ConntrackTableList(netlink.ConntrackTable, netlink.FAMILY_V4)
	have := map[string]bool{}
	for _, f := range list {
		have[fmt.Sprintf("%s>%s %s>%s", f.Forward.SrcIP, f.Forward.DstIP, f.Reverse.SrcIP, f.Reverse.DstIP)] = true
	}
	return have, err
}

// TestHostRecycleEndsFlows of the slot, on both sides, and of no other.
func TestHostRecycleEndsFlows(t *testing.T) {
	r := newRig(t)
	r.options.Subnet = netip.MustParsePrefix("10.77.0.0/24")
	n := r.open()
	seven, eight := r.make(n, 7), r.make(n, 8)
	const (
		out, in7    = "10.77.0.11>9.9.9.9 9.9.9.9>192.0.2.2", "8.8.8.8>192.0.2.2 10.77.0.11>8.8.8.8"
		out8, other = "10.77.0.12>9.9.9.7 9.9.9.7>192.0.2.2", "192.0.2.2>10.77.0.11 10.77.0.11>192.0.2.2"
		foreign     = "192.0.2.2>9.9.9.8 9.9.9.8>192.0.2.2"
	)
	r.inHost(func(*netlink.Handle) error {
		for _, text := range []string{out, in7, out8, other, foreign} {
			if err := flow(text); err != nil {
				return fmt.Errorf("%s: %w", text, err)
			}
		}
		return nil
	})
	for _, s := range []*Slot{seven, eight} {
		inSlot(t, s, func(*netlink.Handle) error { return flow("172.16.0.2>9.9.9.9 9.9.9.9>" + s.Slot.String()) })
	}
	if err := n.Recycle(t.Context(), 7); err != nil {
		t.Fatal(err)
	}
	r.inHost(func(*netlink.Handle) error {
		have, err := flows()
		for text, want := range map[string]bool{out: false, in7: false, out8: true, other: false, foreign: true} {
			if have[text] != want {
				t.Errorf("%s is there: %t, want %t", text, have[text], want)
			}
		}
		return err
	})
	if err := endFlowsWithin(r.host, r.options.Subnet); err != nil {
		t.Error(err)
	}
	r.inHost(func(*netlink.Handle) error {
		have, err := flows()
		if !have[foreign] || len(have) != 1 {
			t.Errorf("what is left without the subnet: %v", have)
		}
		return err
	})
	for s, want := range map[*Slot]int{seven: 0, eight: 1} {
		inSlot(t, s, func(*netlink.Handle) error {
			have, err := flows()
			if len(have) != want {
				t.Errorf("slot %d has the flows %v", s.Number, have)
			}
			return err
		})
	}
}

// TestHostRecycleForgetsNeighbours that are not ours.
func TestHostRecycleForgetsNeighbours(t *testing.T) {
	r := newRig(t)
	n := r.open()
	s := r.make(n, 7)
	want := worldAt(t, s.Namespace)
	inSlot(t, s, func(h *netlink.Handle) error {
		l, err := h.LinkByName(TAP)
		if err != nil {
			return err
		}
		for ip, mac := range map[string]byte{"172.16.0.3": 9, "172.16.0.2": 9} {
			neighbour := &netlink.Neigh{LinkIndex: l.Attrs().Index, IP: net.ParseIP(ip), HardwareAddr: net.HardwareAddr{6, 0, 0, 0, 0, mac}, State: netlink.NUD_PERMANENT}
			if err := h.NeighSet(neighbour); err != nil {
				return err
			}
		}
		return nil
	})
	if worldAt(t, s.Namespace) == want {
		t.Fatal("nothing was changed")
	}
	if err := n.Recycle(t.Context(), 7); err != nil {
		t.Fatal(err)
	}
	if got := worldAt(t, s.Namespace); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}

// ioctl is one on a TAP that is open.
func ioctl(f *os.File, request, argument uintptr) error {
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), request, argument); errno != 0 {
		return errno
	}
	return nil
}

// TestHostRecycleOfAChangedTAP: what a VMM that somebody has taken over can do to its TAP doesn't reach the next.
func TestHostRecycleOfAChangedTAP(t *testing.T) {
	const (
		setOwner, setPersist, setHeader, setMAC = 0x400454cc, 0x400454cb, 0x400454d8, 0x8924
		getHeader                               = 0x800454d7
	)
	header := int32(12)
	mac := struct {
		name [16]byte
		sa   [16]byte
	}{sa: [16]byte{1, 0, 2, 1, 2, 3, 4, 5}}
	for _, c := range []struct {
		name string
		do   func(tap *os.File) error
		anew bool
	}{
		{"nothing", func(*os.File) error { return nil }, false},
		{"its owner", func(f *os.File) error { return ioctl(f, setOwner, 7) }, true},
		{"that it stays", func(f *os.File) error { return ioctl(f, setPersist, 0) }, true},
		{"its header", func(f *os.File) error { return ioctl(f, setHeader, uintptr(unsafe.Pointer(&header))) }, false},
		{"its MAC", func(f *os.File) error { return ioctl(f, setMAC, uintptr(unsafe.Pointer(&mac))) }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			n := r.open()
			s := r.make(n, 7)
			want, before := worldAt(t, s.Namespace), inode(t, s.Namespace)
			open := func(do func(f *os.File) error) {
				inSlot(t, s, func(*netlink.Handle) error {
					f, err := unix.OpenTAP(TAP)
					if err != nil {
						return err
					}
					defer f.Close()
					return do(f)
				})
			}
			open(c.do)
			if err := n.Recycle(t.Context(), 7); err != nil {
				t.Fatal(err)
			}
			if got := worldAt(t, s.Namespace); got != want {
				t.Errorf("%s\nwant\n%s", got, want)
			}
			if anew := inode(t, s.Namespace) != before; anew != c.anew {
				t.Errorf("the slot was made anew: %t", anew)
			}
			open(func(f *os.File) error {
				size := int32(0)
				err := ioctl(f, getHeader, uintptr(unsafe.Pointer(&size)))
				if size != unix.TAPHeader {
					t.Errorf("a header of %d bytes", size)
				}
				return err
			})
		})
	}
}

// TestHostRecycleOfHalfASlot leaves nothing of it.
func TestHostRecycleOfHalfASlot(t *testing.T) {
	r := newRig(t)
	n := r.open()
	s := r.make(n, 7)
	if err := os.Remove(r.options.slotPath(7)); err != nil {
		t.Fatal(err)
	}
	if err := n.Recycle(t.Context(), 7); err != nil {
		t.Error(err)
	}
	if names, err := netns.List(r.options.namespaces()); err != nil || len(names) != 1 {
		t.Errorf("%v, %v", names, err)
	}
	if _, err := os.Lstat(s.Namespace); err == nil {
		t.Error("its file is left")
	}
}
