package microvm

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/tangle-network/microvm-runtime/egress"
)

func TestChangeApply(t *testing.T) {
	rule := egress.Rule{CIDR: netip.MustParsePrefix("198.51.100.7/32")}
	from := Spec{
		VCPUs: 1, MemoryMiB: 128, Kernel: "/kernel", Diskless: true,
		Network: &Network{Receive: &RateLimit{BytesPerSecond: 1 << 20}, Transmit: &RateLimit{BytesPerSecond: 1 << 20}},
	}
	policy := egress.Policy{Rules: []egress.Rule{rule}}
	got, err := Change{Egress: &policy, Caps: &FlowCaps{Flows: 7}, Receive: &RateLimit{}}.Apply(from)
	if err != nil {
		t.Fatal(err)
	}
	if n := got.Network; len(n.Egress.Rules) != 1 || n.Caps.Flows != 7 || n.Receive != nil || n.Transmit == nil || n.Transmit.BytesPerSecond != 1<<20 {
		t.Errorf("it is %+v", *n)
	}
	if n := from.Network; len(n.Egress.Rules) != 0 || n.Caps.Flows != 0 || n.Receive == nil {
		t.Errorf("what it was made from is %+v", *n)
	}
	policy.Rules[0].Name = "example.com"
	if got.Network.Egress.Rules[0] != rule {
		t.Error("it shares the change's rules")
	}
	for name, c := range map[string]Change{
		"no such drive": {DriveLimit: map[int]RateLimit{0: {}}}, "a bad policy": {Egress: &egress.Policy{Rules: []egress.Rule{{}}}}, "a bad cap": {Caps: &FlowCaps{Flows: -1}},
	} {
		if _, err := c.Apply(from); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	from.Network = &Network{None: true}
	if _, err := (Change{Caps: &FlowCaps{}}).Apply(from); !errors.Is(err, ErrInvalid) {
		t.Errorf("of a machine without a network: %v", err)
	}
}

func TestPortClashes(t *testing.T) {
	at := func(protocol egress.Protocol, host string) Port {
		p := Port{Protocol: protocol, Guest: 80}
		if host != "" {
			p.Host = netip.MustParseAddrPort(host)
		}
		return p
	}
	for _, test := range []struct {
		a, b Port
		want bool
	}{
		{at("tcp", "192.0.2.1:80"), at("tcp", "192.0.2.1:80"), true},
		{at("tcp", "192.0.2.1:80"), at("tcp", "0.0.0.0:80"), true},
		{at("tcp", "192.0.2.1:80"), at("tcp", "192.0.2.2:80"), false},
		{at("tcp", "192.0.2.1:80"), at("tcp", "192.0.2.1:81"), false},
		{at("tcp", "192.0.2.1:80"), at("udp", "192.0.2.1:80"), false},
		{at("tcp", ""), at("tcp", ""), false}, // of no host's
		{at("tcp", ""), at("tcp", "0.0.0.0:80"), false},
	} {
		if test.a.Clashes(test.b) != test.want || test.b.Clashes(test.a) != test.want {
			t.Errorf("%v and %v: want %t", test.a, test.b, test.want)
		}
	}
}
