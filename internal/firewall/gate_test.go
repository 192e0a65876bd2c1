//go:build linux

package firewall

import (
	"context"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

// gate sends on all that comes to it, from sockets with the mark or without, and remembers where it was going.
type gate struct {
	*machine
	mark   int
	asked  chan netip.AddrPort
	closed context.Context
	served sync.WaitGroup
}

const gatePort = 15443

func (m *machine) gate(mark int) *gate {
	m.Helper()
	closed, end := context.WithCancel(context.Background())
	g := &gate{machine: m, mark: mark, asked: make(chan netip.AddrPort, 100), closed: closed}
	var listener net.Listener
	err := m.slot.Do(func() (err error) {
		listener, err = net.Listen("tcp4", netip.AddrPortFrom(gatewayAddr(), gatePort).String())
		return err
	})
	if err != nil {
		m.Fatal(err)
	}
	g.served.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			g.served.Go(func() { g.serve(conn) })
		}
	})
	m.Cleanup(func() { // it works in the slot's namespace, which is closed next
		end()
		listener.Close()
		g.served.Wait()
	})
	return g
}

// serve ends with the gate, if none of both ends does before.
func (g *gate) serve(conn net.Conn) {
	defer conn.Close()
	defer context.AfterFunc(g.closed, func() { conn.Close() })()
	to, err := originalOf(conn.(*net.TCPConn))
	if err != nil {
		return
	}
	g.asked <- to
	var onward net.Conn
	dialer := net.Dialer{Timeout: patient, Control: func(_, _ string, raw syscall.RawConn) (err error) {
		raw.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_MARK, g.mark) })
		return err
	}}
	err = g.slot.Do(func() (err error) {
		onward, err = dialer.DialContext(g.closed, "tcp4", to.String())
		return err
	})
	if err != nil {
		return
	}
	defer onward.Close()
	defer context.AfterFunc(g.closed, func() { onward.Close() })()
	g.served.Go(func() { io.Copy(struct{ io.Writer }{onward}, struct{ io.Reader }{conn}) })
	io.Copy(struct{ io.Writer }{conn}, struct{ io.Reader }{onward})
}

// originalOf asks for the destination before the redirection.
func originalOf(conn *net.TCPConn) (to netip.AddrPort, err error) {
	const soOriginalDestination = 80
	raw, err := conn.SyscallConn()
	if err != nil {
		return to, err
	}
	var address syscall.RawSockaddrInet4
	size := uint32(syscall.SizeofSockaddrInet4)
	var errno syscall.Errno
	raw.Control(func(fd uintptr) {
		_, _, errno = syscall.Syscall6(syscall.SYS_GETSOCKOPT, fd, syscall.IPPROTO_IP, soOriginalDestination, uintptr(unsafe.Pointer(&address)), uintptr(unsafe.Pointer(&size)), 0)
	})
	if errno != 0 {
		return to, errno
	}
	port := (*[2]byte)(unsafe.Pointer(&address.Port))
	return netip.AddrPortFrom(netip.AddrFrom4(address.Addr), uint16(port[0])<<8|uint16(port[1])), nil
}

func TestHostGateHasWhatNamesAllow(t *testing.T) {
	m := newWorld(t).machine(1)
	g := m.gate(GateMark)
	m.config.VerifySNI, m.config.GatePort = true, gatePort
	m.allow("198.41.0.4:80", "example.com", "udp:example.com:5001")
	m.check("tcp:198.41.0.4:443 denied", "tcp:172.16.0.1:15443 denied")
	m.grant("example.com", public1, time.Minute)
	m.grant("udp:example.com:5001", public1, time.Minute)
	m.check("tcp:198.41.0.4:443 passes", "tcp:198.41.0.4:853 passes", "tcp:198.41.0.4:80 passes")
	close(g.asked)
	if got := slices.Collect(func(yield func(netip.AddrPort) bool) {
		for to := range g.asked {
			yield(to)
		}
	}); !slices.Equal(got, []netip.AddrPort{netip.MustParseAddrPort("198.41.0.4:443"), netip.MustParseAddrPort("198.41.0.4:853")}) {
		t.Errorf("the gate had %v: the CIDR rule before is not for it", got)
	}
	// QUIC, and what else isn't TCP, is let in by a rule that says so
	m.check("udp:198.41.0.4:443 denied", "icmp:198.41.0.4 denied", "udp:198.41.0.4:5001 passes", "tcp:172.16.0.1:15443 denied")
	if m.counters().Rules[m.id("example.com")].Packets == 0 {
		t.Error("what the gate has isn't counted for its rule")
	}
}

func TestHostGateMustRun(t *testing.T) {
	m := newWorld(t).machine(1)
	m.config.VerifySNI, m.config.GatePort = true, gatePort
	m.allow("example.com")
	m.grant("example.com", public1, time.Minute)
	if got := m.try("tcp:198.41.0.4:443"); got == passes {
		t.Error("it passes without a gate")
	}
	m.config.VerifySNI = false
	m.install()
	m.check("tcp:198.41.0.4:443 passes")
}

func TestHostGateMayNotGoElsewhere(t *testing.T) {
	m := newWorld(t).machine(1)
	m.config.VerifySNI, m.config.GatePort = true, gatePort
	m.allow("example.com")
	m.grant("example.com", public1, time.Minute)
	if _, err := m.dialMarked(GateMark, "198.41.0.4:443"); err != nil {
		t.Errorf("where the name is: %v", err)
	}
	if _, err := m.dialMarked(GateMark, "9.9.9.9:443"); err == nil {
		t.Error("the gate gets where no name is")
	}
	if _, err := m.dialMarked(0, "198.41.0.4:443"); err == nil {
		t.Error("others in the slot's namespace get out")
	}
}

// dialMarked connects from the slot's namespace.
func (m *machine) dialMarked(mark int, to string) (conn net.Conn, err error) {
	dialer := net.Dialer{Timeout: time.Second, Control: func(_, _ string, raw syscall.RawConn) (err error) {
		raw.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_MARK, mark) })
		return err
	}}
	err = m.slot.Do(func() (err error) {
		conn, err = dialer.Dial("tcp4", to)
		return err
	})
	if err == nil {
		m.Cleanup(func() { conn.Close() })
	}
	return conn, err
}

// TestHostGateUpdateCutsItsOwnLeg looks at the gate's side of what a guest would have.
func TestHostGateUpdateCutsItsOwnLeg(t *testing.T) {
	m := newWorld(t).machine(1)
	m.config.VerifySNI, m.config.GatePort = true, gatePort
	m.allow("example.com", "example.org")
	m.grant("example.com", public1, time.Minute)
	m.grant("example.org", public2, time.Minute)
	leg := func(address string) stream {
		t.Helper()
		listener := m.listen(address)
		defer listener.Close()
		conn, err := m.dialMarked(GateMark, listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		server, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		m.Cleanup(func() { server.Close() })
		return stream{machine: m, guest: conn, server: server}
	}
	silent, speaking, kept := leg(public1), leg(public1), leg(public2)
	if silent.back() != passes || speaking.out() != passes {
		t.Fatal("nothing moves before the update")
	}
	m.allow("example.org")
	if got := silent.back(); got != DropLocal {
		t.Errorf("to the gate: %s", got)
	}
	if got := speaking.out(); got != DropLocal {
		t.Errorf("from the gate: %s", got)
	}
	if a, b := kept.out(), kept.back(); a != passes || b != passes {
		t.Errorf("what stays allowed: %s, %s", a, b)
	}
}

func TestHostGateUpdateCutsAndKeeps(t *testing.T) {
	m := newWorld(t).machine(1)
	m.gate(GateMark)
	m.config.VerifySNI, m.config.GatePort = true, gatePort
	m.allow("example.com", "example.org")
	m.grant("example.com", public1, time.Minute)
	m.grant("example.org", public2, time.Minute)
	cut, a := m.dialTCP("198.41.0.4:443")
	kept, b := m.dialTCP("9.9.9.9:443")
	if a != passes || b != passes || m.exchange(cut) != passes || m.exchange(kept) != passes {
		t.Fatal("before the update:", a, b)
	}
	defer cut.Close()
	defer kept.Close()
	m.allow("example.org", "*.example.com")
	if got := m.exchange(cut); got == passes {
		t.Error("a flow of a name that is gone goes on")
	}
	if got := m.exchange(kept); got != passes {
		t.Errorf("a flow of a name that stays: %s", got)
	}
	m.config.VerifySNI = false
	m.install()
	if got := m.exchange(kept); got != passes {
		t.Errorf("without VerifySNI the gate's flow: %s", got)
	}
	direct, got := m.dialTCP("9.9.9.9:443")
	if got != passes || m.exchange(direct) != passes {
		t.Fatal("without VerifySNI:", got)
	}
	defer direct.Close()
	m.config.VerifySNI = true
	m.install()
	if got := m.exchange(direct); got != DropDenied {
		t.Errorf("a flow whose name nobody has looked at: %s", got)
	}
	m.check("tcp:9.9.9.9:443 passes")
}
