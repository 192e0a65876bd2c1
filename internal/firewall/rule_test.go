//go:build linux

package firewall

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

// text says who has which number.
func numbers(rules []Rule) string {
	var words []string
	for _, rule := range rules {
		encoded, err := json.Marshal(rule)
		if err != nil {
			return err.Error()
		}
		words = append(words, string(encoded))
	}
	return strings.Join(words, " ")
}

func TestAssignIDs(t *testing.T) {
	var rules []Rule
	for _, step := range []struct {
		policy []string
		want   string
	}{
		{nil, ""},
		{[]string{"a.org", "b.org"}, `{"id":1,"rule":"a.org"} {"id":2,"rule":"b.org"}`},
		{[]string{"c.org", "B.ORG."}, `{"id":3,"rule":"c.org"} {"id":2,"rule":"b.org"}`},
		{[]string{"b.org"}, `{"id":2,"rule":"b.org"} {"id":3}`},
		{[]string{}, `{"id":3}`},
		{[]string{"b.org"}, `{"id":4,"rule":"b.org"}`},
		{[]string{"10.0.0.0/8", "b.org"}, `{"id":5,"rule":"10.0.0.0/8"} {"id":4,"rule":"b.org"}`},
	} {
		rules = AssignIDs(rules, policy(t, step.policy...))
		if got := numbers(rules); got != step.want {
			t.Fatalf("%v: %s, want %s", step.policy, got, step.want)
		}
		if err := checkRules(rules); err != nil {
			t.Error(err)
		}
		var back []Rule
		encoded, _ := json.Marshal(rules)
		if err := json.Unmarshal(encoded, &back); err != nil || len(back) != len(rules) || len(rules) > 0 && numbers(back) != numbers(rules) {
			t.Errorf("%s is read as %v, %v", encoded, back, err)
		}
	}
}

func TestConfigIsChecked(t *testing.T) {
	good := Config{Slot: address4("100.64.0.5"), Hub: address4("100.64.0.2"), Subnet: netip.MustParsePrefix("100.64.0.0/18")}
	good.Ingress = []Ingress{{"tcp", 80, 8080, nil}, {"udp", 80, 80, nil}}
	good.Rules = AssignIDs(nil, policy(t, "public", "10.0.0.0/8"))
	if err := good.check(); err != nil {
		t.Fatal(err)
	}
	for word, change := range map[string]func(*Config){
		"slot":       func(c *Config) { c.Slot = address4("100.64.64.5") },
		"hub":        func(c *Config) { c.Hub = netip.Addr{} },
		"subnet":     func(c *Config) { c.Subnet = netip.Prefix{} },
		"GatePort":   func(c *Config) { c.VerifySNI = true },
		"limits":     func(c *Config) { c.Limits.DNSBurst = -1 },
		"id 0":       func(c *Config) { c.Rules[1].ID = 0 },
		"id 1":       func(c *Config) { c.Rules[1].ID = 1 },
		"rules[1]":   func(c *Config) { c.Rules[1].Protocol = "sctp" },
		"ingress[1]": func(c *Config) { c.Ingress[1].GuestPort = 0 },
		"icmp":       func(c *Config) { c.Ingress[1].Protocol = "icmp" },
		"twice":      func(c *Config) { c.Ingress[1].Protocol = "tcp" },
		"From":       func(c *Config) { c.Ingress[1].From = []netip.Prefix{netip.MustParsePrefix("10.0.0.1/8")} },
	} {
		bad := good
		bad.Rules, bad.Ingress = append([]Rule(nil), good.Rules...), append([]Ingress(nil), good.Ingress...)
		change(&bad)
		if err := bad.check(); err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("%s: %v", word, err)
		}
	}
}

func TestIntervals(t *testing.T) {
	var got []string
	var prefixes []netip.Prefix
	for _, text := range []string{"0.0.0.0/8", "10.1.0.0/17", "224.0.0.0/4", "240.0.0.0/4"} {
		prefixes = append(prefixes, netip.MustParsePrefix(text))
	}
	for _, e := range intervals(prefixes) {
		a, _ := netip.AddrFromSlice(e.Key)
		if got = append(got, a.String()); e.IntervalEnd {
			got[len(got)-1] = "<" + got[len(got)-1]
		}
	}
	if want := []string{"0.0.0.0", "<1.0.0.0", "10.1.0.0", "<10.1.128.0", "224.0.0.0"}; !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
