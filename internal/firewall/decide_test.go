//go:build linux

package firewall

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tangle-network/microvm-runtime/egress"
)

// TestHostDecidesAsEgress tries flows at random against policies at random: what the kernel does, and by which rule, is what egress.Policy.Decide says.
func TestHostDecidesAsEgress(t *testing.T) {
	m := newWorld(t).machine(1)
	m.gate(GateMark)
	m.config.GatePort = gatePort
	random := rand.New(rand.NewPCG(1, uint64(time.Now().UnixNano())))
	rules := []string{
		"public", "tcp:public", "icmp:public", "udp:public:5000", "198.41.0.4", "198.41.0.0/16", "9.9.9.9:80-443", "10.0.0.0/8", "10.1.2.3:443", "169.254.169.254", "udp:10.0.0.0/7:1-5000",
		"5.5.5.5", "5.5.5.0/24", "10.9.9.9:80", "example.com", "example.com:443", "udp:example.com:5001", "*", "*.example.com", "icmp:example.com",
	}
	names := map[string]string{public1: "example.com", public2: "www.example.com", private: "example.com", hostPublic: "other.org"}
	targets := []string{public1, public2, private, metadata, hostPublic, hostInside}
	for range 20 {
		random.Shuffle(len(rules), func(i, j int) { rules[i], rules[j] = rules[j], rules[i] })
		texts := slices.Clone(rules[:1+random.IntN(4)])
		policy := policy(t, texts...)
		policy.VerifySNI = random.IntN(2) == 0
		m.config.VerifySNI = policy.VerifySNI
		m.allow(texts...)
		m.grantAll(names)
		for range 8 {
			flow := egress.Flow{
				Protocol: []egress.Protocol{egress.TCP, egress.UDP, egress.ICMP}[random.IntN(3)], Address: address4(targets[random.IntN(len(targets))]), Port: uint16(served[random.IntN(len(served))]),
			}
			flow.Name, flow.Host = names[flow.Address.String()], slices.Contains(m.config.Host, flow.Address)
			m.same(texts, policy, flow)
		}
		if t.Failed() {
			return
		}
	}
}

// grantAll does what the resolver does: each rule that matches a name gets its address.
func (m *machine) grantAll(names map[string]string) {
	m.Helper()
	for _, rule := range m.assigned {
		for address, name := range names {
			if !rule.retired() && rule.Rule.MatchName(name) {
				if err := m.rules.Grant(rule.ID, netip.MustParseAddr(address), time.Hour); err != nil {
					m.Fatal(err)
				}
			}
		}
	}
}

func (m *machine) same(texts []string, policy egress.Policy, flow egress.Flow) {
	m.Helper()
	text := fmt.Sprintf("%s:%s:%d", flow.Protocol, flow.Address, flow.Port)
	if flow.Protocol == egress.ICMP {
		text, flow.Port = strings.TrimSuffix(text, fmt.Sprintf(":%d", flow.Port)), 0
	}
	want := DropDenied
	index, ok := policy.Decide(flow)
	if ok {
		want = passes
	}
	before := m.counters()
	if got := m.try(text); got != want {
		m.Errorf("%v, VerifySNI %t: %s (%s): %s, and egress says %s", texts, policy.VerifySNI, text, flow.Name, got, want)
		return
	}
	after := m.counters()
	for i, rule := range policy.Rules {
		id := m.id(rule.String())
		if counted := after.Rules[id] != before.Rules[id]; counted != (i == index) {
			m.Errorf("%v, VerifySNI %t: %s (%s): rule %s counts: %t, and egress says it is rule %d", texts, policy.VerifySNI, text, flow.Name, rule, counted, index)
		}
	}
}
