//go:build linux

package firewall

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
)

func (m *machine) counters() Counters {
	m.Helper()
	c, err := m.rules.Counters()
	if err != nil {
		m.Fatal(err)
	}
	return c
}

// passes is what outcomes are when nothing dropped a packet; else they are the reason.
const passes = "passes"

// outcome waits until done says that an answer came, or a drop was counted, and says which.
func (m *machine) outcome(before Counters, done func() error) string {
	m.Helper()
	for deadline := time.Now().Add(patient); time.Now().Before(deadline); {
		if err := done(); err == nil {
			return passes
		} else if !errors.Is(err, os.ErrDeadlineExceeded) {
			return err.Error()
		}
		if reason := dropped(before, m.counters()); reason != "" {
			return reason
		}
	}
	return "nothing happens"
}

// dropped names the counter that has counted.
func dropped(before, after Counters) string {
	for reason, count := range after.Dropped {
		if count.Packets > before.Dropped[reason].Packets {
			return reason
		}
	}
	return ""
}

// soon is how long a look for an answer takes.
const soon = 5 * time.Millisecond

// try sends to "udp:ADDRESS:PORT", "tcp:ADDRESS:PORT" or "icmp:ADDRESS" and says what becomes of it.
func (m *machine) try(flow string) string {
	m.Helper()
	protocol, to, _ := strings.Cut(flow, ":")
	switch protocol {
	case "udp":
		conn := m.dialUDP(to)
		defer conn.Close()
		return m.exchange(conn)
	case "icmp":
		return m.ping(to)
	}
	conn, outcome := m.dialTCP(to)
	if conn == nil {
		return outcome
	}
	defer conn.Close()
	conn.(*net.TCPConn).SetLinger(0) // its end is one packet: none comes later, and is counted then
	return m.exchange(conn)
}

func (m *machine) dialUDP(to string) net.Conn {
	m.Helper()
	var conn net.Conn
	err := m.guest.Do(func() (err error) {
		conn, err = net.Dial("udp4", to)
		return err
	})
	if err != nil {
		m.Fatal(err)
	}
	return conn
}

// dialTCP returns the connection, or what becomes of the SYN.
func (m *machine) dialTCP(to string) (net.Conn, string) {
	m.Helper()
	before := m.counters()
	ctx, cancel := context.WithCancel(m.Context())
	defer cancel()
	var conn net.Conn
	done := make(chan error, 1)
	go func() {
		done <- m.guest.Do(func() (err error) {
			conn, err = new(net.Dialer).DialContext(ctx, "tcp4", to)
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
	if cancel(); !finished {
		<-done
	}
	if outcome != passes && conn != nil {
		conn.Close()
		conn = nil
	}
	return conn, outcome
}

// exchange sends a byte and waits for its echo.
func (m *machine) exchange(conn net.Conn) string {
	m.Helper()
	before := m.counters()
	if _, err := conn.Write([]byte("x")); err != nil {
		return err.Error()
	}
	return m.outcome(before, func() error { return read(conn) })
}

// read waits a moment for a byte.
func read(conn net.Conn) error {
	conn.SetReadDeadline(time.Now().Add(soon))
	_, err := conn.Read(make([]byte, 1))
	return err
}

// pings numbers echo requests: each is a flow of its own. One that goes on keeps the rule that it began by.
var pings atomic.Uint32

func (m *machine) ping(to string) string {
	m.Helper()
	var conn net.PacketConn
	err := m.guest.Do(func() (err error) {
		conn, err = net.ListenPacket("ip4:icmp", "0.0.0.0")
		return err
	})
	if err != nil {
		m.Fatal(err)
	}
	defer conn.Close()
	before := m.counters()
	id := int(pings.Add(1) & 0xffff)
	message, _ := (&icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{ID: id, Seq: 1, Data: []byte("x")}}).Marshal(nil)
	if _, err := conn.WriteTo(message, &net.IPAddr{IP: net.ParseIP(to)}); err != nil {
		m.Fatal(err)
	}
	return m.outcome(before, func() error {
		conn.SetReadDeadline(time.Now().Add(soon))
		part := make([]byte, 128)
		n, _, err := conn.ReadFrom(part)
		if err != nil {
			return err
		}
		answer, err := icmp.ParseMessage(ipv4.ICMPTypeEcho.Protocol(), part[:n])
		if echo, ok := answer.Body.(*icmp.Echo); err == nil && ok && echo.ID != id {
			return os.ErrDeadlineExceeded // another's answer
		}
		return err
	})
}

// check tries flows and compares what becomes of them: each is "FLOW OUTCOME".
func (m *machine) check(flows ...string) {
	m.Helper()
	for _, text := range flows {
		flow, want, _ := strings.Cut(text, " ")
		if got := m.try(flow); got != want {
			m.Errorf("%s: %s, want %s", flow, got, want)
		}
	}
}
