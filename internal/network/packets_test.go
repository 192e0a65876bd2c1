//go:build linux

package network

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/tangle-network/microvm-runtime/egress"
	"github.com/tangle-network/microvm-runtime/internal/firewall"
	"github.com/tangle-network/microvm-runtime/internal/netns"
	"github.com/tangle-network/microvm-runtime/internal/testing/netlab"
	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
)

const (
	soon = 10 * time.Second       // within which what must come comes
	not  = 150 * time.Millisecond // how long is waited for what must not
)

// packets is a network in a lab, with guests.
type packets struct {
	*testing.T
	lab    *netlab.Lab
	net    *Network
	guests map[int]*netlab.Guest
}

func newPackets(t *testing.T, numbers ...int) *packets {
	t.Helper()
	ring.Host(t)
	p := &packets{T: t, lab: netlab.New(t), guests: map[int]*netlab.Guest{}}
	options := Options{Dir: filepath.Join(t.TempDir(), "network"), ID: "0123abcd", Host: p.lab.Host, Subnet: netip.MustParsePrefix("10.77.0.0/24")}
	t.Cleanup(func() {
		if err := Remove(context.Background(), options); err != nil {
			t.Error(err)
		}
	})
	var err error
	if p.net, err = Open(t.Context(), options); err != nil {
		t.Fatal(err)
	}
	for _, number := range numbers {
		p.guest(number)
	}
	return p
}

// guest makes a slot, or takes the one that is ready, and a guest in it.
func (p *packets) guest(number int) *netlab.Guest {
	p.Helper()
	s, err := p.net.Make(p.Context(), number, user(number), user(number))
	if err != nil {
		p.Fatal(err)
	}
	p.guests[number] = p.lab.Guest(p.T, s.Namespace)
	return p.guests[number]
}

func (p *packets) at(number int, port uint16) netip.AddrPort {
	p.Helper()
	a, err := p.net.Addresses(number)
	if err != nil {
		p.Fatal(err)
	}
	return netip.AddrPortFrom(a.Slot, port)
}

// inRules runs f with a slot's rules.
func (p *packets) inRules(number int, f func(s *firewall.Slot, config firewall.Config) error) {
	p.Helper()
	config, err := p.net.Config(number)
	if err != nil {
		p.Fatal(err)
	}
	if config.Host, err = p.net.HostAddresses(); err != nil {
		p.Fatal(err)
	}
	ns, err := netns.Open(p.net.options.namespace(number))
	if err != nil {
		p.Fatal(err)
	}
	defer ns.Close()
	s, err := firewall.OpenSlot(ns)
	if err != nil {
		p.Fatal(err)
	}
	if err := errors.Join(f(s, config), s.Close()); err != nil {
		p.Fatal(err)
	}
}

// allow replaces a slot's policy.
func (p *packets) allow(number int, rules ...string) {
	p.Helper()
	p.inRules(number, func(s *firewall.Slot, config firewall.Config) error {
		for i, text := range rules {
			rule, err := egress.ParseRule(text)
			if err != nil {
				return err
			}
			config.Rules = append(config.Rules, firewall.Rule{ID: uint32(i + 1), Rule: rule})
		}
		return s.Install(config)
	})
}

// let lets in what comes to a port of a slot.
func (p *packets) let(number int, port uint16, guestPort uint16) {
	p.Helper()
	p.inRules(number, func(s *firewall.Slot, config firewall.Config) error {
		for _, protocol := range []egress.Protocol{egress.TCP, egress.UDP} {
			config.Ingress = append(config.Ingress, firewall.Ingress{Protocol: protocol, Port: port, GuestPort: guestPort})
		}
		return s.Install(config)
	})
}

func (p *packets) dropped(number int) (dropped map[string]uint64) {
	p.inRules(number, func(s *firewall.Slot, _ firewall.Config) error {
		counters, err := s.Counters()
		dropped = map[string]uint64{}
		for reason, c := range counters.Dropped {
			dropped[reason] = c.Packets
		}
		return err
	})
	return dropped
}

// try is a way that a guest may have.
type try struct {
	name string
	do   func(patience time.Duration) error
	rule string // that opens it
}

// tries are all destinations there are, by what reaches them.
func (p *packets) tries(g *netlab.Guest) []try {
	echo := func(network string, to netip.AddrPort) func(time.Duration) error {
		return func(patience time.Duration) error { return g.Echo(network, to, patience) }
	}
	get := func(url string, from netip.Addr) func(time.Duration) error {
		return func(patience time.Duration) error { _, err := g.Get(url, from, patience); return err }
	}
	look := func(network string) func(time.Duration) error {
		return func(patience time.Duration) error {
			_, err := g.Look(network, netip.AddrPortFrom(netlab.DNS, 53), "example.com", dns.TypeA, patience)
			return err
		}
	}
	return []try{
		{"web", get("http://example.com/", netlab.Web), "tcp:93.184.215.14:80"},
		{"tls", get("https://example.com/", netlab.Web), "tcp:93.184.215.14/32:443"},
		{"udp", echo("udp", netip.AddrPortFrom(netlab.Echo, 7)), "udp:5.9.9.0/24:7"},
		{"tcp", echo("tcp", netip.AddrPortFrom(netlab.Echo, 7002)), "tcp:5.9.9.7:7000-7002"},
		{"ping", func(patience time.Duration) error { return g.Ping(netlab.Other, patience) }, "icmp:151.101.1.69"},
		{"dns", look("udp"), "udp:9.9.9.9:53"},
		{"dns by tcp", look("tcp"), "tcp:9.9.9.9:53"},
		{"dns by tls", echo("tcp", netip.AddrPortFrom(netlab.DNS, 853)), "tcp:9.9.9.9:853"},
		{"metadata", get("http://169.254.169.254/", netlab.Metadata), "tcp:169.254.169.254:80"},
		{"private net", echo("udp", netip.AddrPortFrom(netlab.Private, 7)), "udp:10.9.9.0/24:7"},
		{"host", echo("tcp", netip.AddrPortFrom(netlab.HostWAN, 7)), ""},
		{"host's link", echo("udp", netip.AddrPortFrom(p.net.plan.host(), 7)), ""},
		{"hub", echo("tcp", netip.AddrPortFrom(p.net.plan.hub(), 7)), ""},
		{"guest", echo("udp", p.at(8, 7)), "udp:10.77.0.12:7"},
		{"guest by tcp", echo("tcp", p.at(8, 7)), "tcp:10.77.0.12/32:7"},
	}
}

// TestHostDeniedUnlessNamed: each way is closed, open with the rule that names it, and closed again without; a rule for everything opens only what is public.
func TestHostDeniedUnlessNamed(t *testing.T) {
	p := newPackets(t, 7, 8)
	seven := p.guests[7]
	everywhere := netip.AddrPortFrom(netip.IPv4Unspecified(), 7)
	hub, err := p.net.Hub()
	if err != nil {
		t.Fatal(err)
	}
	defer hub.Close()
	if err := errors.Join(p.lab.EchoIn(p.lab.Host, everywhere), p.lab.EchoIn(hub, everywhere), p.guests[8].Serve(7)); err != nil {
		t.Fatal(err)
	}
	p.let(8, 7, 7)
	public := []string{"web", "tls", "udp", "tcp", "ping", "dns", "dns by tcp", "dns by tls"}
	for _, try := range p.tries(seven) {
		t.Run(try.name, func(t *testing.T) {
			p := *p
			p.T = t
			if err := try.do(not); err == nil {
				t.Error("open without a rule")
			}
			if try.rule != "" {
				p.allow(7, try.rule)
				if err := try.do(soon); err != nil {
					t.Errorf("closed with the rule %s: %v", try.rule, err)
				}
			}
			p.allow(7, "0.0.0.0/0")
			if want := slices.Contains(public, try.name); want {
				if err := try.do(soon); err != nil {
					t.Errorf("closed with a rule for everything: %v", err)
				}
			} else if err := try.do(not); err == nil {
				t.Error("opened by a rule for everything")
			}
			p.allow(7)
			if err := try.do(not); err == nil {
				t.Error("open after the rule is gone")
			}
		})
	}
}

// TestHostOwnAddresses: slots keep guests from the host without the host's table, which keeps them from it too.
func TestHostOwnAddresses(t *testing.T) {
	p := newPackets(t, 7)
	g, host := p.guests[7], netip.AddrPortFrom(netlab.HostWAN, 7)
	if err := p.lab.EchoIn(p.lab.Host, host); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		table bool
		rule  string
		open  bool
	}{{true, "0.0.0.0/0", false}, {false, "0.0.0.0/0", false}, {false, "81.2.69.0/24", false}, {false, "81.2.69.142/32", true}} {
		p.allow(7, c.rule)
		if !c.table {
			if err := (installed{}).remove(p.net.options); err != nil {
				t.Fatal(err)
			}
		}
		patience := not
		if c.open {
			patience = soon
		}
		for _, network := range []string{"udp", "tcp"} {
			if err := g.Echo(network, host, patience); (err == nil) != c.open {
				t.Errorf("%s with the rule %s, table %t: %v", network, c.rule, c.table, err)
			}
		}
	}
}

// TestHostLies: what a guest says of who it is passes only when it is true.
func TestHostLies(t *testing.T) {
	p := newPackets(t, 7, 8)
	g := p.guests[7]
	to := netip.AddrPortFrom(netlab.Echo, 7)
	other := netip.MustParseAddrPort
	p.allow(7, "0.0.0.0/0")
	fragments := netlab.Frame{To: to, Text: "a datagram in two fragments"}.Fragments()
	for _, lie := range []struct {
		name    string
		frames  [][]byte
		text    string
		counter string
	}{
		{"a MAC", [][]byte{netlab.Frame{To: to, From: []byte{6, 0, 0xac, 0x10, 0, 3}, Text: "a MAC"}.Bytes()}, "a MAC", firewall.DropSpoofedMAC},
		{"the gateway's MAC", [][]byte{netlab.Frame{To: to, From: netlab.GatewayMAC, Text: "the gateway's MAC"}.Bytes()}, "the gateway's MAC", firewall.DropSpoofedMAC},
		{"another guest's address", [][]byte{netlab.Frame{To: to, Source: p.at(8, 9), Text: "another guest"}.Bytes()}, "another guest", firewall.DropSpoofedAddress},
		{"the slot's own address", [][]byte{netlab.Frame{To: to, Source: p.at(7, 9), Text: "the slot"}.Bytes()}, "the slot", firewall.DropSpoofedAddress},
		{"the gateway's address", [][]byte{netlab.Frame{To: to, Source: other("172.16.0.1:9"), Text: "the gateway"}.Bytes()}, "the gateway", firewall.DropSpoofedAddress},
		{"a public address", [][]byte{netlab.Frame{To: to, Source: other("8.8.8.8:9"), Text: "a public one"}.Bytes()}, "a public one", firewall.DropSpoofedAddress},
		{"a VLAN", [][]byte{netlab.Frame{To: to, VLAN: 7, Text: "a VLAN"}.Bytes()}, "a VLAN", firewall.DropOtherType},
		{"fragments", fragments, "a datagram in two fragments", firewall.DropFragment},
		{"options", [][]byte{netlab.Frame{To: to, Options: []byte{0x83, 3, 4, 1}, Text: "options"}.Bytes()}, "options", firewall.DropOptions},
		{"IPv6", [][]byte{netlab.IPv6(other("[fd00::2]:9"), other("[2001:db8::1]:7"), "IPv6")}, "IPv6", firewall.DropIPv6},
		{"ARP for another", [][]byte{netlab.ARP{Reply: true, Sender: netip.MustParseAddr("172.16.0.1")}.Bytes()}, "", firewall.DropARP},
		{"ARP with another MAC", [][]byte{netlab.ARP{SenderMAC: []byte{6, 0, 0xac, 0x10, 0, 3}}.Bytes()}, "", firewall.DropARP},
		{"ARP for a foreign address", [][]byte{netlab.ARP{Target: netlab.HostWAN}.Bytes()}, "", firewall.DropARP},
	} {
		before, neighbours := p.dropped(7)[lie.counter], worldAt(t, p.net.options.namespace(7))
		for _, frame := range lie.frames {
			if err := g.Inject(frame); err != nil {
				t.Fatal(err)
			}
		}
		honest := "honest after " + lie.name
		if err := g.Inject(netlab.Frame{To: to, Text: honest}.Bytes()); err != nil {
			t.Fatal(err)
		}
		if a, err := p.lab.Await(netlab.Text(honest)); err != nil || a.From.Addr() != netlab.HostWAN {
			t.Errorf("%s: the honest one after it: %+v, %v", lie.name, a, err)
		}
		if came := p.lab.Came(netlab.Text(lie.text)); lie.text != "" && len(came) > 0 {
			t.Errorf("%s arrived: %+v", lie.name, came)
		}
		if now := p.dropped(7)[lie.counter]; now != before+uint64(len(lie.frames)) {
			t.Errorf("%s: %s was %d, is %d", lie.name, lie.counter, before, now)
		}
		if after := worldAt(t, p.net.options.namespace(7)); after != neighbours {
			t.Errorf("%s changed\n%s\nto\n%s", lie.name, neighbours, after)
		}
	}
}

// TestHostPublished: a port of the host leads to a guest while it is published and let in, from outside and from another guest.
func TestHostPublished(t *testing.T) {
	p := newPackets(t, 7)
	if err := p.guests[7].Serve(80); err != nil {
		t.Fatal(err)
	}
	try := func(patience time.Duration) error {
		conn, err := p.lab.Dial("tcp", netip.AddrPortFrom(netlab.HostWAN, 8080).String(), patience)
		if err != nil {
			return err
		}
		defer conn.Close()
		return netlab.Speak(conn, "hello", patience)
	}
	host, err := p.net.Firewall()
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	if err := try(not); err == nil {
		t.Error("open before it was published")
	}
	if err := host.Publish(firewall.Publication{Address: netlab.HostWAN, Protocol: egress.TCP, Port: 8080, To: p.at(7, 8080)}); err != nil {
		t.Fatal(err)
	}
	if err := try(not); err == nil {
		t.Error("open before the slot lets it in")
	}
	p.let(7, 8080, 80)
	if err := try(soon); err != nil {
		t.Error(err)
	}
	p.guests[7].Close()
	if err := p.net.Recycle(t.Context(), 7); err != nil {
		t.Fatal(err)
	}
	if list, err := host.Published(); err != nil || len(list) > 0 {
		t.Errorf("published after recycling: %v, %v", list, err)
	}
	next := p.guest(7)
	if err := next.Serve(80); err != nil {
		t.Fatal(err)
	}
	p.let(7, 8080, 80)
	if err := try(not); err == nil {
		t.Error("the next machine is reached by what was published for the one before")
	}
}

// TestHostNextGuestInASlot has nothing of the one before: flows, rules, answers of names, counters, what was denied.
func TestHostNextGuestInASlot(t *testing.T) {
	p := newPackets(t, 7)
	g := p.guests[7]
	p.allow(7, "tcp:5.9.9.7:7", "tcp:example.com:80")
	p.inRules(7, func(s *firewall.Slot, _ firewall.Config) error { return s.Grant(2, netlab.Web, time.Hour) })
	if _, err := g.Get("http://example.com/", netlab.Web, soon); err != nil {
		t.Error(err)
	}
	conn, err := g.Dial("tcp", netip.AddrPortFrom(netlab.Echo, 7).String(), soon)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := netlab.Speak(conn, "hello", soon); err != nil {
		t.Fatal(err)
	}
	if err := g.Echo("udp", netip.AddrPortFrom(netlab.Other, 7), not); err == nil {
		t.Error("not denied")
	}
	p.inRules(7, func(s *firewall.Slot, _ firewall.Config) error {
		if denied, err := s.Denied(); err != nil || len(denied) != 1 {
			t.Errorf("denied %v, %v", denied, err)
		}
		return nil
	})
	frames := len(g.Frames())
	g.Close()
	if err := p.net.Recycle(t.Context(), 7); err != nil {
		t.Fatal(err)
	}
	p.inRules(7, func(s *firewall.Slot, _ firewall.Config) error {
		if denied, err := s.Denied(); err != nil || len(denied) > 0 {
			t.Errorf("denied %v, %v", denied, err)
		}
		counters, err := s.Counters()
		for reason, c := range counters.Dropped {
			if c.Packets > 0 {
				t.Errorf("%s is %d", reason, c.Packets)
			}
		}
		if len(counters.Rules) > 0 || frames == 0 {
			t.Errorf("rules %v, %d frames", counters.Rules, frames)
		}
		return err
	})
	next := p.guest(7)
	if _, err := next.Get("http://example.com/", netlab.Web, not); err == nil {
		t.Error("the next guest reaches what the one before was allowed")
	}
	p.allow(7, "tcp:5.9.9.7:7", "tcp:example.com:80")
	if err := next.Echo("tcp", netip.AddrPortFrom(netlab.Echo, 7), soon); err != nil {
		t.Error(err)
	}
	if _, err := next.Get("http://example.com/", netlab.Web, not); err == nil {
		t.Error("the next guest has an answer that the one before was given")
	}
	// What the server of the old flow sends finds nobody.
	came := p.lab.Came(func(a netlab.Arrival) bool { return a.Service == "tcp" && a.Text == "hello" })
	if len(came) != 1 {
		t.Fatalf("%+v", came)
	}
	if late := slices.ContainsFunc(next.Frames(), func(f []byte) bool {
		return len(f) > 36 && fmt.Sprint(f[34:36]) == fmt.Sprint([]byte{0, 7}) && fmt.Sprint(f[36:38]) == port(came[0])
	}); late {
		t.Error("a packet of the old flow came")
	}
}

func port(a netlab.Arrival) string {
	return fmt.Sprint([]byte{byte(a.From.Port() >> 8), byte(a.From.Port())})
}

// TestHostFlushedTable: whoever flushes the host's rules takes ways from guests, and gives them none; Open gives back what it took.
func TestHostFlushedTable(t *testing.T) {
	p := newPackets(t, 7)
	g := p.guests[7]
	p.allow(7, "udp:5.9.9.7:7")
	echo := netip.AddrPortFrom(netlab.Echo, 7)
	if err := g.Echo("udp", echo, soon); err != nil {
		t.Fatal(err)
	}
	if err := (installed{}).remove(p.net.options); err != nil {
		t.Fatal(err)
	}
	for _, try := range p.tries(g) {
		if err := try.do(not); err == nil && try.name != "udp" {
			t.Errorf("%s is open", try.name)
		}
	}
	if _, err := Open(t.Context(), p.net.options); err != nil {
		t.Fatal(err)
	}
	if err := g.Echo("udp", echo, soon); err != nil {
		t.Errorf("masquerade is not back: %v", err)
	}
}
