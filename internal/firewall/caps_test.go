//go:build linux

package firewall

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/netns"
)

// flood sends one datagram to each of many ports, from one socket: each is a flow.
func (m *machine) flood(address string, flows int) {
	m.Helper()
	var conn net.PacketConn
	err := m.guest.Do(func() (err error) {
		conn, err = net.ListenPacket("udp4", ":0")
		return err
	})
	if err != nil {
		m.Fatal(err)
	}
	defer conn.Close()
	to := net.UDPAddrFromAddrPort(netip.AddrPortFrom(address4(address), 0))
	for i := range flows {
		to.Port = 10000 + i%50000
		if _, err := conn.WriteTo([]byte("x"), to); err != nil && !errors.Is(err, syscall.ENOBUFS) && !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, os.ErrDeadlineExceeded) {
			m.Fatal(err)
		}
	}
}

// tracked is how many flows the slot's namespace has.
func (m *machine) tracked() int { return m.world.tracked(m.slot) }

// tracked is how many entries the connection tracking of a namespace has, also of flows that have ended.
func (w *world) tracked(ns *netns.Namespace) int {
	w.Helper()
	n := 0
	err := ns.Do(func() error {
		text, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_count")
		if err == nil {
			_, err = fmt.Sscan(string(text), &n)
		}
		return err
	})
	if err != nil {
		w.Fatal(err)
	}
	return n
}

func TestHostConnectionLimit(t *testing.T) {
	w := newWorld(t)
	m, other := w.machine(1), w.machine(2)
	m.config.Limits = Limits{Connections: 100, NewPerSecond: 1 << 20, NewBurst: 1 << 20}
	m.allow("198.41.0.4", "9.9.9.9")
	other.allow("198.41.0.4")
	m.flood(public1, 30000)
	if n := m.tracked(); n > 110 {
		t.Errorf("%d flows are tracked", n)
	}
	if got := m.counters().Dropped[DropConnectionLimit].Packets; got < 20000 {
		t.Errorf("%d packets are counted", got)
	}
	m.check("udp:9.9.9.9:5000 connection_limit", "tcp:9.9.9.9:80 connection_limit")
	other.check("udp:198.41.0.4:5000 passes", "tcp:198.41.0.4:80 passes")

	m.install() // an update doesn't forget who is there
	m.check("udp:9.9.9.9:5000 connection_limit")
	m.config.Limits.Connections = 1 << 20
	m.install()
	m.check("udp:9.9.9.9:5000 passes", "tcp:9.9.9.9:80 passes")
}

func TestHostNewFlowLimit(t *testing.T) {
	w := newWorld(t)
	m, other := w.machine(1), w.machine(2)
	m.config.Limits = Limits{NewPerSecond: 1, NewBurst: 50}
	m.allow("198.41.0.4")
	other.allow("198.41.0.4")
	first := m.dialUDP("198.41.0.4:5000")
	defer first.Close()
	if got := m.exchange(first); got != passes {
		t.Fatalf("the first flow: %s", got)
	}
	m.flood(public1, 30000)
	if n := m.tracked(); n > 100 {
		t.Errorf("%d flows are tracked", n)
	}
	m.install() // an update doesn't fill the bucket
	m.flood(public1, 10)
	m.check("udp:198.41.0.4:5000 new_limit")
	if got := m.exchange(first); got != passes {
		t.Errorf("a flow that is there: %s", got)
	}
	other.check("udp:198.41.0.4:5000 passes", "tcp:198.41.0.4:80 passes")
	m.config.Limits = Limits{}
	m.install()
	m.check("udp:198.41.0.4:5000 passes")
}

func TestHostGateHasTheSameLimits(t *testing.T) {
	m := newWorld(t).machine(1)
	m.gate(GateMark)
	m.config.VerifySNI, m.config.GatePort = true, gatePort
	for _, test := range []struct {
		limits Limits
		want   string
	}{
		{Limits{NewPerSecond: 1, NewBurst: 5}, DropNewLimit},
		{Limits{Connections: 5}, DropConnectionLimit},
		{Limits{Connections: 1000}, passes},
	} {
		m.config.Limits = test.limits
		m.allow("example.com")
		m.grant("example.com", public1, time.Minute)
		last := passes
		for n := 0; n < 30 && last == passes; n++ {
			var conn net.Conn
			if conn, last = m.dialTCP("198.41.0.4:443"); conn != nil {
				defer conn.Close()
			}
		}
		if last != test.want {
			t.Errorf("%+v: %s, want %s", test.limits, last, test.want)
		}
	}
}

func TestHostDNSLimit(t *testing.T) {
	w := newWorld(t)
	m, other := w.machine(1), w.machine(2)
	m.config.Limits = Limits{DNSPerSecond: 1, DNSBurst: 20}
	m.allow("198.41.0.4")
	query := m.dialUDP("172.16.0.1:53") // all of one flow
	defer query.Close()
	if got := m.exchange(query); got != passes {
		t.Fatalf("the first query: %s", got)
	}
	for range 1000 {
		if _, err := query.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	if got := m.counters().Dropped[DropDNSLimit].Packets; got < 900 {
		t.Errorf("%d queries are counted", got)
	}
	m.check("udp:172.16.0.1:53 dns_limit", "udp:198.41.0.4:5000 passes", "tcp:198.41.0.4:80 passes")
	other.check("udp:172.16.0.1:53 passes")
	m.config.Limits = Limits{}
	m.install()
	m.check("udp:172.16.0.1:53 passes")
}

// TestHostDeniedFlowsCostNothing floods where nothing is allowed: no flow is remembered, and the set of denied flows has an end.
func TestHostDeniedFlowsCostNothing(t *testing.T) {
	m := newWorld(t).machine(1)
	m.config.Limits = Limits{NewPerSecond: 1, NewBurst: 1, Connections: 1}
	m.allow("9.9.9.9")
	start := time.Now()
	m.flood(public1, 5000)
	t.Logf("%s a packet", time.Since(start)/5000)
	if n := m.tracked(); n > 2 {
		t.Errorf("%d flows are tracked", n)
	}
	denied, err := m.rules.Denied()
	if err != nil || len(denied) != mostDenied {
		t.Errorf("%d destinations are remembered, %v", len(denied), err)
	}
	if got := m.counters().Dropped[DropDenied].Packets; got < 5000 {
		t.Errorf("%d packets are counted", got)
	}
	m.check("udp:9.9.9.9:5000 passes")
}
