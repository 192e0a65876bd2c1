//go:build linux

package main

import (
	"net/netip"
	"strings"
	"testing"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/egress"
)

// TestDeniedIsToldWithItsFlag: what --allow takes is what opens the flow, also where the name was denied and no flow was ever tried.
func TestDeniedIsToldWithItsFlag(t *testing.T) {
	server := netip.MustParseAddr("1.1.1.1")
	for _, c := range []struct {
		flow microvm.DeniedFlow
		want string
		try  egress.Flow
	}{
		{microvm.DeniedFlow{Name: "example.com"}, "denied: example.com (--allow example.com opens it)", egress.Flow{Protocol: egress.TCP, Address: server, Port: 443, Name: "example.com"}},
		{microvm.DeniedFlow{Protocol: egress.TCP, Address: server, Port: 443}, "denied: tcp 1.1.1.1:443 (--allow 1.1.1.1:443 opens it)", egress.Flow{Protocol: egress.TCP, Address: server, Port: 443}},
		{microvm.DeniedFlow{Address: server}, "denied: 1.1.1.1 (--allow 1.1.1.1 opens it)", egress.Flow{Protocol: egress.TCP, Address: server, Port: 443}},
		{microvm.DeniedFlow{Protocol: egress.ICMP, Address: server}, "denied: icmp 1.1.1.1 (--allow icmp:1.1.1.1 opens it)", egress.Flow{Protocol: egress.ICMP, Address: server}},
	} {
		told := toldDenied(c.flow)
		if told != "microvm: "+c.want {
			t.Errorf("%q, want %q", told, c.want)
		}
		_, rest, _ := strings.Cut(told, "--allow ")
		flag, _, _ := strings.Cut(rest, " ")
		policy, err := (&netFlags{allow: []string{flag}}).policy()
		if err != nil {
			t.Errorf("--allow %s: %v", flag, err)
			continue
		}
		if _, ok := policy.Decide(c.try); !ok {
			t.Errorf("--allow %s does not open %+v", flag, c.try)
		}
		if _, ok := (egress.Policy{}).Decide(c.try); ok {
			t.Errorf("%+v needs no rule", c.try)
		}
	}
}

// TestDeniedWithoutAFlag: where no rule can have the name, no flag is told, and what the guest has asked for is nothing to a terminal or a shell.
func TestDeniedWithoutAFlag(t *testing.T) {
	for name, want := range map[string]string{
		"public": `denied: "public" (no rule can have this name)`, "*": `denied: "*" (no rule can have this name)`, "a\x1b[2J": `denied: "a\x1b[2J" (no rule can have this name)`,
	} {
		if told := toldDenied(microvm.DeniedFlow{Name: name}); told != "microvm: "+want {
			t.Errorf("%q, want %q", told, want)
		}
	}
}

func TestStatsAreTables(t *testing.T) {
	rule, err := egress.ParseRule("example.com:443")
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	err = printStats(&b, microvm.Stats{Network: &microvm.NetworkStats{
		Rules: []microvm.RuleStats{{Rule: rule, Packets: 3, Bytes: 200}}, Drops: map[string]uint64{"ipv6": 4, "arp": 0},
		Denied: []microvm.DeniedFlow{{Name: "other.example", Packets: 2}, {Name: "*", Packets: 1}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(b.String()) {
		got = append(got, strings.Join(strings.Fields(line), " "))
	}
	want := "RULE PACKETS BYTES|example.com:443 3 200||DROPPED PACKETS|ipv6 4||DENIED PACKETS OPENED BY|other.example 2 other.example|\"*\" 1 -"
	if strings.Join(got, "|") != want {
		t.Errorf("%q, want %q", strings.Join(got, "|"), want)
	}
}
