//go:build linux

package publish

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"

	"github.com/vishvananda/netlink"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/egress"
	"github.com/tangle-network/microvm-runtime/internal/netns"
	"github.com/tangle-network/microvm-runtime/internal/testing/leak"
	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
)

func TestMain(m *testing.M) { os.Exit(leak.Main(m)) }

func book(t *testing.T, gone map[string]bool) *Book {
	t.Helper()
	b, err := Open(t.TempDir(), func(owner string) bool { return !gone[owner] }, nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func port(protocol egress.Protocol, host string) microvm.Port {
	return microvm.Port{Protocol: protocol, Guest: 80, Host: netip.MustParseAddrPort(host)}
}

func TestOneMachineHasAPort(t *testing.T) {
	gone := map[string]bool{}
	b := book(t, gone)
	take := func(owner string, ports ...microvm.Port) error { return b.Take(t.Context(), owner, ports) }
	if err := take("a", port(egress.TCP, "127.0.0.1:18200"), microvm.Port{Protocol: egress.TCP, Guest: 1}); err != nil {
		t.Fatal(err)
	}
	for _, clash := range []string{"127.0.0.1:18200", "0.0.0.0:18200"} {
		err := take("b", port(egress.TCP, "127.0.0.1:18201"), port(egress.TCP, clash))
		held := (*HeldError)(nil)
		if !errors.Is(err, microvm.ErrBusy) || !errors.As(err, &held) || held.Holder != "a" {
			t.Errorf("%s for another: %v", clash, err)
		}
	}
	if err := take("c", port(egress.TCP, "127.0.0.1:18201")); err != nil {
		t.Errorf("what a refused call asked for beside is not free: %v", err)
	}
	if err := take("b", port(egress.UDP, "127.0.0.1:18200"), port(egress.TCP, "127.0.0.2:18200")); err != nil {
		t.Errorf("another protocol and another address: %v", err)
	}
	if err := take("a", port(egress.TCP, "127.0.0.1:18202")); err != nil { // in place of 18200
		t.Fatal(err)
	}
	if err := b.Return(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	if err := take("d", port(egress.TCP, "0.0.0.0:18200")); err != nil {
		t.Errorf("after all gave it back: %v", err)
	}
	gone["d"] = true
	if err := take("e", port(egress.TCP, "0.0.0.0:18200")); err != nil {
		t.Errorf("of an owner that is gone: %v", err)
	}
}

func TestWhatTheHostListensAt(t *testing.T) {
	b := book(t, nil)
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := port(egress.TCP, listener.Addr().String())
	if err := b.Take(t.Context(), "a", []microvm.Port{at}); !errors.Is(err, microvm.ErrBusy) {
		t.Errorf("a port with a listener: %v", err)
	}
	listener.Close()
	if err := b.Take(t.Context(), "a", []microvm.Port{at}); err != nil {
		t.Errorf("after it closed: %v", err)
	}
	if err := b.Take(t.Context(), "b", []microvm.Port{port(egress.UDP, "192.0.2.1:18203")}); !errors.Is(err, microvm.ErrInvalid) {
		t.Errorf("an address of nobody's: %v", err)
	}
}

// TestHostPortsAreOfTheHostsNamespace: what is free, and which addresses there are, is asked where the machines' network is, wherever the caller is.
func TestHostPortsAreOfTheHostsNamespace(t *testing.T) {
	ring.Host(t)
	host, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { host.Close() })
	const address = "192.0.2.1" // this process's namespace has it not
	var listener net.Listener
	err = host.Do(func() error {
		h, err := netlink.NewHandle()
		if err != nil {
			return err
		}
		defer h.Close()
		lo, err := h.LinkByName("lo")
		if err != nil {
			return err
		}
		a, _ := netlink.ParseAddr(address + "/32")
		if err := errors.Join(h.LinkSetUp(lo), h.AddrAdd(lo, a)); err != nil {
			return err
		}
		listener, err = net.Listen("tcp4", address+":18204")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	b, err := Open(t.TempDir(), func(string) bool { return true }, host)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Take(t.Context(), "a", []microvm.Port{port(egress.TCP, address+":18204")}); !errors.Is(err, microvm.ErrBusy) {
		t.Errorf("a port with a listener there: %v", err)
	}
	listener.Close()
	for _, p := range []microvm.Port{port(egress.TCP, address+":18204"), port(egress.UDP, address+":18204")} {
		if err := b.Take(t.Context(), "a", []microvm.Port{p}); err != nil {
			t.Errorf("%v, which is free there: %v", p, err)
		}
		if err := book(t, nil).Take(t.Context(), "a", []microvm.Port{p}); !errors.Is(err, microvm.ErrInvalid) {
			t.Errorf("%v, whose address this namespace has not: %v", p, err)
		}
	}
}
