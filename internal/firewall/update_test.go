//go:build linux

package firewall

import (
	"errors"
	"fmt"
	"net"
	"os"
	"testing"
	"time"
)

// stream is a TCP connection of which the test has both ends.
type stream struct {
	*machine
	guest, server net.Conn
}

// listen opens a port that nothing else serves.
func (m *machine) listen(address string) net.Listener {
	m.Helper()
	var listener net.Listener
	err := m.net.Do(func() (err error) {
		listener, err = net.Listen("tcp4", net.JoinHostPort(address, "0"))
		return err
	})
	if err != nil {
		m.Fatal(err)
	}
	return listener
}

// stream connects the guest to such a port.
func (m *machine) stream(address string) stream {
	m.Helper()
	listener := m.listen(address)
	defer listener.Close()
	s := stream{machine: m}
	var outcome string
	var err error
	if s.guest, outcome = m.dialTCP(listener.Addr().String()); outcome != passes {
		m.Fatalf("%s: %s", listener.Addr(), outcome)
	}
	m.Cleanup(func() { s.guest.Close() })
	if s.server, err = listener.Accept(); err != nil {
		m.Fatal(err)
	}
	m.Cleanup(func() { s.server.Close() })
	return s
}

// out and back send a byte one way, and say what becomes of it.
func (s stream) out() string  { s.Helper(); return s.move(s.guest, s.server) }
func (s stream) back() string { s.Helper(); return s.move(s.server, s.guest) }

func (s stream) move(from, to net.Conn) string {
	s.Helper()
	before := s.counters()
	if _, err := from.Write([]byte("x")); err != nil {
		return err.Error()
	}
	return s.outcome(before, func() error { return read(to) })
}

func TestHostUpdateCutsWhatItForbids(t *testing.T) {
	m := newWorld(t).machine(1)
	m.allow("198.41.0.4", "9.9.9.9")
	outward, backward, kept := m.stream(public1), m.stream(public1), m.stream(public2)
	datagrams := m.dialUDP("198.41.0.4:5000")
	defer datagrams.Close()
	if a, b, c := outward.out(), backward.back(), m.exchange(datagrams); a != passes || b != passes || c != passes {
		t.Fatalf("before the update: %s, %s, %s", a, b, c)
	}
	m.allow("9.9.9.9")
	if got := outward.out(); got != DropDenied {
		t.Errorf("from the guest: %s", got)
	}
	if got := backward.back(); got != DropStale {
		t.Errorf("to the guest, which says nothing itself: %s", got)
	}
	if got := m.exchange(datagrams); got != DropDenied {
		t.Errorf("UDP: %s", got)
	}
	if a, b := kept.out(), kept.back(); a != passes || b != passes {
		t.Errorf("what stays allowed: %s, %s", a, b)
	}
}

func TestHostUpdateKeepsWhatAnotherRuleAllows(t *testing.T) {
	m := newWorld(t).machine(1)
	m.allow("198.41.0.4")
	s, silent := m.stream(public1), m.stream(public1)
	m.allow("198.41.0.0/16")
	if got := s.out(); got != passes {
		t.Errorf("from the guest: %s", got)
	}
	if got := s.back(); got != passes {
		t.Errorf("to the guest: %s", got)
	}
	if got := silent.back(); got != DropStale {
		t.Errorf("to a guest that said nothing since: %s", got)
	}
	if got := silent.out(); got != passes {
		t.Errorf("once the guest says something: %s", got)
	}
	if got := read(silent.guest); got != nil && !arrives(silent.guest) {
		t.Errorf("what was dropped is never sent again")
	}
}

func arrives(conn net.Conn) bool {
	conn.SetReadDeadline(time.Now().Add(patient))
	_, err := conn.Read(make([]byte, 1))
	return err == nil
}

// TestHostUpdateLosesNoByte sends without a pause while the policy is replaced over and over.
func TestHostUpdateLosesNoByte(t *testing.T) {
	m := newWorld(t).machine(1)
	m.allow("198.41.0.4")
	s := m.stream(public1)
	before := m.counters()
	const updates = 100
	failed := make(chan error, 1)
	go func() {
		buffer := make([]byte, 1<<16)
		for {
			if _, err := s.guest.Write(buffer); err != nil {
				failed <- err
				return
			}
		}
	}()
	received := make(chan error, 1)
	s.server.SetReadDeadline(time.Now().Add(3 * patient))
	go func() {
		buffer := make([]byte, 1<<16)
		for {
			if _, err := s.server.Read(buffer); err != nil {
				received <- err
				return
			}
		}
	}()
	for i := range updates {
		if i%2 == 0 {
			m.allow("9.9.9.9", "198.41.0.4")
		} else {
			m.allow("198.41.0.4", "10.0.0.0/8")
		}
	}
	s.guest.Close()
	<-failed
	if err := <-received; errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the stream stopped")
	}
	if reason := dropped(before, m.counters()); reason != "" {
		t.Errorf("packets were dropped: %s", reason)
	}
	if m.counters().Rules[m.id("198.41.0.4")].Packets < updates {
		t.Error("the rule's counter began anew")
	}
}

func TestHostUpdateKeepsGrantsOfRulesThatStay(t *testing.T) {
	m := newWorld(t).machine(1)
	m.allow("example.com", "example.org")
	m.grant("example.com", public1, time.Minute)
	m.grant("example.org", public2, time.Minute)
	s := m.stream(public2)
	gone := m.id("example.org")
	m.allow("example.com", "example.net")
	m.check("tcp:198.41.0.4:80 passes", "tcp:9.9.9.9:80 denied")
	if got := s.out(); got != DropDenied {
		t.Errorf("a flow of the name that is gone: %s", got)
	}
	if err := m.rules.Grant(gone, address4(public2), time.Minute); !errors.Is(err, ErrNoRule) {
		t.Errorf("a grant to a rule that is gone: %v", err)
	}
	m.allow("example.com", "example.org") // again: it is a rule as new
	if got := m.id("example.org"); got == gone {
		t.Error("a number is given again")
	}
	m.check("tcp:9.9.9.9:80 denied")
	if got := s.out(); got != DropDenied {
		t.Errorf("the flow of old: %s", got)
	}
}

func TestHostRefusedUpdateChangesNothing(t *testing.T) {
	m := newWorld(t).machine(1)
	m.allow("198.41.0.4")
	bad := m.config
	bad.Rules = AssignIDs(m.assigned, policy(t, "9.9.9.9"))
	rules := slotTables(bad)
	last := rules[1].chains[len(rules[1].chains)-1]
	last.rules = append(last.rules, jump("nowhere"))
	if err := m.rules.conn.install(rules, false); err == nil {
		t.Fatal("a rule that jumps nowhere is taken")
	} else {
		t.Log(err)
	}
	m.check("tcp:198.41.0.4:80 passes", "tcp:9.9.9.9:80 denied")
	if err := m.rules.Install(bad); err != nil {
		t.Fatal(err)
	}
	m.check("tcp:198.41.0.4:80 denied", "tcp:9.9.9.9:80 passes")
}

func TestHostInstallIsIdempotent(t *testing.T) {
	m := newWorld(t).machine(1)
	m.allow("198.41.0.4", "example.com")
	before := list(t, m.slot)
	m.install()
	if after := list(t, m.slot); after != before {
		t.Errorf("the second time:\n%s\nwant\n%s", after, before)
	}
	other, err := OpenSlot(m.slot) // of another process
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := other.Install(m.config); err != nil {
		t.Fatal(err)
	}
	if after := list(t, m.slot); after != before {
		t.Errorf("by another:\n%s\nwant\n%s", after, before)
	}
}

func TestHostUpdatesAtTheSameTime(t *testing.T) {
	m := newWorld(t).machine(1)
	m.allow("example.com")
	done := make(chan error, 3)
	for i := range 3 {
		go func() {
			rules, err := OpenSlot(m.slot)
			config := m.config
			for j := 0; j < 30 && err == nil; j++ {
				if i == 0 {
					err = rules.Grant(m.config.Rules[0].ID, address4(public1), time.Duration(j+1)*time.Minute)
					continue
				}
				config.Rules = AssignIDs(config.Rules, policy(t, "example.com", fmt.Sprintf("10.%d.%d.0/24", i, j)))
				err = rules.Install(config)
			}
			done <- errors.Join(err, rules.Close())
		}()
	}
	if err := errors.Join(<-done, <-done, <-done); err != nil {
		t.Fatal(err)
	}
	m.check("tcp:198.41.0.4:80 passes")
}

func TestHostResetForgetsEverything(t *testing.T) {
	m := newWorld(t).machine(1)
	m.allow("198.41.0.4", "example.com")
	m.grant("example.com", public2, time.Minute)
	m.check("tcp:198.41.0.4:80 passes", "tcp:9.9.9.9:80 passes", "tcp:9.9.9.9:443 passes", "tcp:10.1.2.3:80 denied")
	if err := m.rules.Reset(m.config); err != nil {
		t.Fatal(err)
	}
	denied, err := m.rules.Denied()
	if err != nil || len(denied) > 0 {
		t.Errorf("denied: %v, %v", denied, err)
	}
	for reason, count := range m.counters().Dropped {
		if count.Packets > 0 {
			t.Errorf("counter %s is %d", reason, count.Packets)
		}
	}
	m.check("tcp:198.41.0.4:80 denied", "tcp:9.9.9.9:80 denied", "tcp:10.1.2.3:80 denied")
	m.install()
	m.check("tcp:198.41.0.4:80 passes", "tcp:9.9.9.9:80 denied")
}
