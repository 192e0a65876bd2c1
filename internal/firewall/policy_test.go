//go:build linux

package firewall

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tangle-network/microvm-runtime/egress"
)

func TestHostNothingIsAllowedByDefault(t *testing.T) {
	m := newWorld(t).machine(1)
	m.check("udp:198.41.0.4:5000 denied", "tcp:198.41.0.4:443 denied", "icmp:198.41.0.4 denied", "tcp:10.1.2.3:80 denied", "udp:100.64.0.2:53 denied")
	m.check("tcp:172.16.0.1:80 denied", "icmp:172.16.0.1 denied")
	m.allow("public", "10.1.2.3", "100.64.0.2")
	m.check("udp:198.41.0.4:5000 passes", "tcp:198.41.0.4:443 passes", "icmp:198.41.0.4 passes", "tcp:10.1.2.3:80 passes", "udp:100.64.0.2:53 passes")
	m.check("tcp:172.16.0.1:80 denied", "icmp:172.16.0.1 denied")
}

func TestHostRulesOpenWhatTheySay(t *testing.T) {
	m := newWorld(t).machine(1)
	for _, test := range []struct {
		rule  string
		flows []string
	}{
		{"198.41.0.4", []string{"udp:198.41.0.4:80 passes", "tcp:198.41.0.4:80 passes", "icmp:198.41.0.4 passes", "udp:9.9.9.9:80 denied"}},
		{"198.41.0.0/16", []string{"tcp:198.41.0.4:80 passes", "tcp:9.9.9.9:80 denied"}},
		{"198.40.0.0/15", []string{"tcp:198.41.0.4:80 passes", "tcp:9.9.9.9:80 denied"}},
		{"198.41.0.4:443", []string{"tcp:198.41.0.4:443 passes", "udp:198.41.0.4:443 denied", "tcp:198.41.0.4:80 denied"}},
		{"udp:198.41.0.4:5000-5001", []string{"udp:198.41.0.4:5000 passes", "udp:198.41.0.4:5001 passes", "tcp:198.41.0.4:5000 denied", "udp:198.41.0.4:853 denied"}},
		{"icmp:public", []string{"icmp:198.41.0.4 passes", "icmp:9.9.9.9 passes", "udp:198.41.0.4:80 denied", "icmp:10.1.2.3 denied"}},
		{"tcp:public", []string{"tcp:9.9.9.9:853 passes", "udp:9.9.9.9:853 denied", "udp:9.9.9.9:53 denied"}},
	} {
		m.allow(test.rule)
		m.check(test.flows...)
		if t.Failed() {
			t.Fatalf("by the rule %s", test.rule)
		}
	}
}

func TestHostReservedAddressesMustBeNamed(t *testing.T) {
	m := newWorld(t).machine(1)
	m.allow("public")
	m.check("tcp:10.1.2.3:80 denied", "tcp:169.254.169.254:80 denied", "udp:100.64.0.9:80 denied", "tcp:198.41.0.4:80 passes")
	m.allow("8.0.0.0/5", "196.0.0.0/6") // these contain reserved addresses beside public ones
	m.check("tcp:10.1.2.3:80 denied", "tcp:9.9.9.9:80 passes", "tcp:198.41.0.4:80 passes")
	m.allow("10.0.0.0/8", "169.254.0.0/16")
	m.check("tcp:10.1.2.3:80 passes", "tcp:169.254.169.254:80 passes", "tcp:198.41.0.4:80 denied")
}

func TestHostOwnAddressesMustBeNamedOneByOne(t *testing.T) {
	m := newWorld(t).machine(1)
	m.allow("public", "10.0.0.0/8", "5.5.5.4/31")
	m.check("tcp:5.5.5.5:80 denied", "tcp:10.9.9.9:80 denied", "icmp:5.5.5.5 denied", "tcp:198.41.0.4:80 passes", "tcp:10.1.2.3:80 passes")
	m.allow("5.5.5.5", "tcp:10.9.9.9:80")
	m.check("tcp:5.5.5.5:80 passes", "tcp:10.9.9.9:80 passes", "tcp:10.9.9.9:443 denied", "icmp:5.5.5.5 passes")

	m.config.Host = nil // the host has other addresses now
	m.allow("public", "10.0.0.0/8")
	m.check("tcp:5.5.5.5:80 passes", "tcp:10.9.9.9:80 passes")
}

func TestHostNeighboursAreOpenedByTheirSubnetOnly(t *testing.T) {
	m := newWorld(t).machine(1)
	m.allow("public", "100.64.0.0/10")
	m.check("tcp:100.64.0.9:80 denied", "tcp:100.64.0.2:80 denied", "tcp:198.41.0.4:80 passes")
	m.allow("100.64.0.8/29")
	m.check("tcp:100.64.0.9:80 passes", "tcp:100.64.0.2:80 denied")
	m.allow("100.64.0.0/18") // the hub is no neighbour: its resolver would be asked past the cap of questions
	m.check("tcp:100.64.0.9:80 passes", "udp:100.64.0.2:53 denied", "tcp:100.64.0.2:80 denied")
}

// TestHostSubnetNeedNotBeReserved has a subnet of public addresses.
func TestHostSubnetNeedNotBeReserved(t *testing.T) {
	m := newWorld(t).machine(1)
	m.allow("public")
	m.check("tcp:100.1.1.1:80 passes")
	m.allow("*")
	m.grant("*", beside, time.Minute)
	m.check("tcp:100.1.1.1:80 passes")
	m.config.Subnet = netip.MustParsePrefix("96.0.0.0/3")
	m.allow("public", "*")
	m.grant("*", beside, time.Minute)
	m.check("tcp:100.1.1.1:80 denied", "tcp:198.41.0.4:80 passes")
	m.allow("*")
	m.grant("*", public1, time.Minute)
	m.check("tcp:100.1.1.1:80 denied", "tcp:198.41.0.4:80 passes")
	m.allow("100.0.0.0/10")
	m.check("tcp:100.1.1.1:80 passes")
}

func TestHostNamesOpenWhatIsGranted(t *testing.T) {
	m := newWorld(t).machine(1)
	m.allow("example.com", "udp:*.example.org:5000")
	m.check("tcp:198.41.0.4:80 denied", "udp:9.9.9.9:5000 denied")
	m.grant("example.com", public1, time.Minute)
	m.grant("udp:*.example.org:5000", public2, time.Minute)
	m.check("tcp:198.41.0.4:80 passes", "icmp:198.41.0.4 passes", "udp:9.9.9.9:5000 passes", "udp:9.9.9.9:5001 denied", "tcp:9.9.9.9:5000 denied")
}

func TestHostNamesOpenNothingReserved(t *testing.T) {
	m := newWorld(t).machine(1)
	m.allow("*")
	for _, address := range []string{public1, private, metadata, hostPublic, hostInside, neighbour, resolver} {
		m.grant("*", address, time.Minute)
	}
	m.check("tcp:198.41.0.4:80 passes", "tcp:10.1.2.3:80 denied", "tcp:169.254.169.254:80 denied", "tcp:5.5.5.5:80 denied", "tcp:10.9.9.9:80 denied")
	m.check("udp:100.64.0.9:80 denied", "udp:100.64.0.2:53 denied")
	m.allow("*", private)
	m.check("tcp:10.1.2.3:80 passes")
}

func TestHostGrantsExpireAndFlowsGoOn(t *testing.T) {
	m := newWorld(t).machine(1)
	m.allow("example.com")
	m.grant("example.com", public1, 3*time.Second)
	m.grant("example.com", public2, time.Minute)
	m.grant("example.com", public2, time.Millisecond) // one that lasts longer stays
	stream, outcome := m.dialTCP("198.41.0.4:80")
	datagrams := m.dialUDP("198.41.0.4:5000")
	defer datagrams.Close()
	if outcome != passes || m.exchange(datagrams) != passes {
		t.Fatalf("granted: %s", outcome)
	}
	defer stream.Close()
	last := ""
	for deadline := time.Now().Add(patient); last != "denied" && time.Now().Before(deadline); {
		last = m.try("tcp:198.41.0.4:80")
	}
	m.check("tcp:198.41.0.4:80 denied", "tcp:9.9.9.9:80 passes")
	if a, b := m.exchange(stream), m.exchange(datagrams); a != passes || b != passes {
		t.Errorf("flows that began in time: %s, %s", a, b)
	}
	m.grant("example.com", public1, time.Minute)
	m.check("tcp:198.41.0.4:80 passes")
}

func TestHostResolverIsReachedByTheGateway(t *testing.T) {
	m := newWorld(t).machine(1)
	m.check("udp:172.16.0.1:53 passes", "tcp:172.16.0.1:53 passes", "udp:100.64.0.2:53 denied", "udp:9.9.9.9:53 denied", "tcp:9.9.9.9:853 denied", "udp:172.16.0.1:80 denied")
	if m.counters().DNS.Packets < 2 {
		t.Errorf("DNS is not counted: %+v", m.counters())
	}
	m.allow("udp:9.9.9.9:53", "9.9.9.9:853")
	m.check("udp:9.9.9.9:53 passes", "tcp:9.9.9.9:853 passes")
}

func TestHostErrorsComeBack(t *testing.T) {
	m := newWorld(t).machine(1)
	m.allow("198.41.0.4")
	m.check("udp:198.41.0.4:5000 passes")
	if got := m.try("udp:198.41.0.4:9"); !strings.Contains(got, "connection refused") { // nobody listens there
		t.Errorf("a closed port: %s", got)
	}
	m.check("udp:198.41.0.4:5001 passes", "udp:9.9.9.9:9 denied")
}

func TestHostSegmentsFitTheMTU(t *testing.T) {
	m := newWorld(t).machine(1)
	segment := func(conn net.Conn) (size int) {
		t.Helper()
		raw, err := conn.(*net.TCPConn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		raw.Control(func(fd uintptr) { size, err = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_MAXSEG) })
		if err != nil {
			t.Fatal(err)
		}
		return size
	}
	m.allow("198.41.0.4")
	if s := m.stream(public1); segment(s.guest) <= 1260 || segment(s.server) <= 1260 {
		t.Errorf("with an MTU of 1500: %d, %d", segment(s.guest), segment(s.server))
	}
	m.config.MTU = 1300
	m.install()
	if s := m.stream(public1); segment(s.guest) > 1260 || segment(s.server) > 1260 {
		t.Errorf("with an MTU of 1300: %d, %d", segment(s.guest), segment(s.server))
	}
}

// TestHostManyRules installs as many as a policy can have, of each kind.
func TestHostManyRules(t *testing.T) {
	m := newWorld(t).machine(1)
	var texts []string
	for n := range egress.MaxRules - 1 {
		texts = append(texts, []string{fmt.Sprintf("udp:9.%d.0.0/17:1-%d", n, n+1), fmt.Sprintf("*.example%d.org:443", n)}[n%2])
	}
	m.config.VerifySNI, m.config.GatePort = true, gatePort
	for range 2 {
		m.allow(append(texts, "198.41.0.4")...)
		m.check("udp:198.41.0.4:5000 passes", "udp:9.9.9.9:5000 denied")
	}
	if got := len(m.counters().Rules); got != egress.MaxRules {
		t.Errorf("%d rules are counted", got)
	}
	m.allow("9.9.9.9")
	m.check("udp:198.41.0.4:5000 denied", "udp:9.9.9.9:5000 passes")
}
