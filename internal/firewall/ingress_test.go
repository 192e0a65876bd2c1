//go:build linux

package firewall

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"
)

// guestEcho serves a port in the guest.
func (m *machine) guestEcho(port string) {
	m.Helper()
	var listener net.Listener
	var packets net.PacketConn
	err := m.guest.Do(func() (err error) {
		if listener, err = net.Listen("tcp4", ":"+port); err != nil {
			return err
		}
		packets, err = net.ListenPacket("udp4", "172.16.0.2:"+port)
		return err
	})
	if err != nil {
		m.Fatal(err)
	}
	m.Cleanup(func() { listener.Close(); packets.Close() })
	go echoPackets(packets)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			m.Cleanup(func() { conn.Close() })
			go io.Copy(struct{ io.Writer }{conn}, struct{ io.Reader }{conn})
		}
	}()
}

// arrive connects to a port that echoes, and says what becomes of it.
func (m *machine) arrive(network, from, port string) (net.Conn, string) {
	m.Helper()
	conn, outcome := m.knock(network, from, port)
	if outcome == passes {
		outcome = m.exchange(conn)
	}
	return conn, outcome
}

// knock connects to the slot from an address of the world, and says what becomes of it. The connection is nil when nothing does.
func (m *machine) knock(network, from, port string) (net.Conn, string) {
	m.Helper()
	before := m.counters()
	var conn net.Conn
	dialer := net.Dialer{Timeout: patient}
	if network == "udp4" {
		dialer.LocalAddr = &net.UDPAddr{IP: net.ParseIP(from)}
	} else {
		dialer.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	ctx, cancel := context.WithCancel(m.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() {
		done <- m.net.Do(func() (err error) {
			conn, err = dialer.DialContext(ctx, network, net.JoinHostPort(m.config.Slot.String(), port))
			return err
		})
	}()
	finished := false
	outcome := m.outcome(before, func() error {
		select {
		case err := <-done:
			finished = true
			return err
		case <-time.After(soon):
			return os.ErrDeadlineExceeded
		}
	})
	if !finished {
		if cancel(); <-done == nil {
			conn.Close()
		}
		return nil, outcome
	}
	if outcome == passes {
		m.Cleanup(func() { conn.Close() })
	}
	return conn, outcome
}

func TestHostIngress(t *testing.T) {
	m := newWorld(t).machine(1)
	m.guestEcho("8080")
	want := func(network, from, port, outcome string) {
		t.Helper()
		if _, got := m.arrive(network, from, port); got != outcome {
			t.Errorf("%s from %s to port %s: %s, want %s", network, from, port, got, outcome)
		}
	}
	want("tcp4", public1, "80", DropLocal)
	want("udp4", public1, "80", DropLocal)
	m.config.Ingress = []Ingress{{"tcp", 80, 8080, nil}, {"udp", 80, 8080, []netip.Prefix{netip.MustParsePrefix("198.41.0.0/16"), netip.MustParsePrefix("10.0.0.0/8")}}}
	m.install()
	want("tcp4", public1, "80", passes)
	want("tcp4", public2, "80", passes)
	want("udp4", public1, "80", passes)
	want("udp4", private, "80", passes)
	want("udp4", public2, "80", DropStale)
	want("tcp4", public1, "81", DropLocal)
	want("tcp4", public1, "8080", DropLocal) // the guest's port by itself
	m.check("udp:198.41.0.4:5000 denied")    // nothing is opened the other way
	if m.counters().Ingress.Packets == 0 {
		t.Error("nothing is counted")
	}
}

func TestHostIngressUpdateCutsAndKeeps(t *testing.T) {
	m := newWorld(t).machine(1)
	m.guestEcho("8080")
	m.config.Ingress = []Ingress{{"tcp", 80, 8080, nil}, {"tcp", 81, 8080, nil}, {"tcp", 82, 8082, nil}}
	m.install()
	gone, a := m.arrive("tcp4", public1, "80")
	kept, b := m.arrive("tcp4", public2, "81")
	if a != passes || b != passes {
		t.Fatalf("published: %s, %s", a, b)
	}
	var listener net.Listener
	if err := m.guest.Do(func() (err error) { listener, err = net.Listen("tcp4", ":8082"); return err }); err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	client, c := m.knock("tcp4", public1, "82")
	if c != passes {
		t.Fatal(c)
	}
	server, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	silent := stream{machine: m, guest: server, server: client}
	if got := silent.out(); got != passes {
		t.Fatalf("from the guest: %s", got)
	}
	m.config.Ingress = m.config.Ingress[1:2]
	m.allow("9.9.9.0/24") // and the policy
	if got := silent.out(); got != DropStale {
		t.Errorf("from the guest, by what is no longer published: %s", got)
	}
	if got := m.exchange(gone); got != DropStale {
		t.Errorf("what is no longer published: %s", got)
	}
	if got := m.exchange(kept); got != passes {
		t.Errorf("what still is: %s", got)
	}
	m.config.Ingress[0].From = []netip.Prefix{netip.MustParsePrefix("198.41.0.0/16")}
	m.install()
	if got := m.exchange(kept); got != DropStale {
		t.Errorf("who may not come any more: %s", got)
	}
}

// TestHostIngressLimit floods a published port from outside.
func TestHostIngressLimit(t *testing.T) {
	m := newWorld(t).machine(1)
	m.guestEcho("8080")
	m.config.Limits = Limits{Connections: 20, NewPerSecond: 1 << 20, NewBurst: 1 << 20}
	m.config.Ingress = []Ingress{{"udp", 80, 8080, nil}}
	m.allow("9.9.9.9")
	for range 200 {
		var conn net.Conn
		err := m.net.Do(func() (err error) {
			conn, err = net.DialUDP("udp4", &net.UDPAddr{IP: net.ParseIP(public1)}, net.UDPAddrFromAddrPort(netip.AddrPortFrom(m.config.Slot, 80)))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		_, err = conn.Write([]byte("x"))
		if err := errors.Join(err, conn.Close()); err != nil {
			t.Fatal(err)
		}
	}
	if n := m.tracked(); n > 30 {
		t.Errorf("%d flows are tracked", n)
	}
	m.check("udp:9.9.9.9:5000 passes") // the guest's own flows have their own cap
}

// TestHostGuestToGuest needs both: a rule of the one, and a port of the other.
func TestHostGuestToGuest(t *testing.T) {
	w := newWorld(t)
	a, b := w.machine(1), w.machine(2)
	b.guestEcho("8080")
	conn := a.dialUDP(netip.AddrPortFrom(b.config.Slot, 80).String())
	defer conn.Close()
	try := func() (sender, receiver string) {
		t.Helper()
		beforeA, beforeB := a.counters(), b.counters()
		if _, err := conn.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(patient); time.Now().Before(deadline); {
			if read(conn) == nil {
				return passes, passes
			}
			sender, receiver = dropped(beforeA, a.counters()), dropped(beforeB, b.counters())
			if sender != "" || receiver != "" {
				return sender, receiver
			}
		}
		return "", ""
	}
	for _, step := range []struct {
		rules            []string
		ingress          []Ingress
		sender, receiver string
	}{
		{[]string{"public", "100.64.0.0/10"}, []Ingress{{"udp", 80, 8080, nil}}, DropDenied, ""},
		{[]string{"udp:100.64.0.6:80"}, nil, "", DropLocal},
		{[]string{"udp:100.64.0.6:80"}, []Ingress{{"udp", 80, 8080, nil}}, passes, passes},
		{[]string{"udp:100.64.0.6:80"}, []Ingress{{"udp", 80, 8080, []netip.Prefix{netip.MustParsePrefix("100.64.0.7/32")}}}, "", DropStale},
		{[]string{"udp:100.64.0.6:80"}, []Ingress{{"udp", 80, 8080, []netip.Prefix{netip.MustParsePrefix("100.64.0.5/32")}}}, passes, passes},
	} {
		b.config.Ingress = step.ingress
		b.install()
		a.allow(step.rules...)
		if sender, receiver := try(); sender != step.sender || receiver != step.receiver {
			t.Errorf("%v and %v: %q, %q, want %q, %q", step.rules, step.ingress, sender, receiver, step.sender, step.receiver)
		}
	}
}
