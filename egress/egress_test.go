package egress_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/tangle-network/microvm-runtime/egress"
)

// parse is for rules that are good.
func parse(t testing.TB, text string) egress.Rule {
	t.Helper()
	rule, err := egress.ParseRule(text)
	if err != nil {
		t.Fatal(err)
	}
	return rule
}

func TestTextsOfRules(t *testing.T) {
	cidr := netip.MustParsePrefix
	long := strings.Repeat("a", 63)
	for text, want := range map[string]struct {
		rule egress.Rule
		form string // "" where it is the text itself
	}{
		"example.com":                {rule: egress.Rule{Name: "example.com"}},
		"Example.COM.":               {egress.Rule{Name: "example.com"}, "example.com"},
		"example.com.:443":           {egress.Rule{Name: "example.com", Protocol: "tcp", FirstPort: 443, LastPort: 443}, "example.com:443"},
		"tcp:example.com:443":        {egress.Rule{Name: "example.com", Protocol: "tcp", FirstPort: 443, LastPort: 443}, "example.com:443"},
		"TCP:example.com:443-443":    {egress.Rule{Name: "example.com", Protocol: "tcp", FirstPort: 443, LastPort: 443}, "example.com:443"},
		"tcp:example.com":            {rule: egress.Rule{Name: "example.com", Protocol: "tcp"}},
		"udp:*.example.com:1-65535":  {rule: egress.Rule{Name: "*.example.com", Protocol: "udp", FirstPort: 1, LastPort: 65535}},
		"*":                          {rule: egress.Rule{Name: "*"}},
		"*:443":                      {rule: egress.Rule{Name: "*", Protocol: "tcp", FirstPort: 443, LastPort: 443}},
		"localhost":                  {rule: egress.Rule{Name: "localhost"}},
		"_http._tcp.deb.debian.org":  {rule: egress.Rule{Name: "_http._tcp.deb.debian.org"}},
		"xn--bcher-kva.example":      {rule: egress.Rule{Name: "xn--bcher-kva.example"}},
		"192.0.2.7":                  {rule: egress.Rule{CIDR: cidr("192.0.2.7/32")}},
		"192.0.2.7/32":               {egress.Rule{CIDR: cidr("192.0.2.7/32")}, "192.0.2.7"},
		"udp:10.1.2.0/24:5000-5999":  {rule: egress.Rule{CIDR: cidr("10.1.2.0/24"), Protocol: "udp", FirstPort: 5000, LastPort: 5999}},
		"public":                     {rule: egress.Rule{CIDR: cidr("0.0.0.0/0")}},
		"0.0.0.0/0":                  {egress.Rule{CIDR: cidr("0.0.0.0/0")}, "public"},
		"icmp:public":                {rule: egress.Rule{CIDR: cidr("0.0.0.0/0"), Protocol: "icmp"}},
		"public:80":                  {rule: egress.Rule{CIDR: cidr("0.0.0.0/0"), Protocol: "tcp", FirstPort: 80, LastPort: 80}},
		long + "." + long + ".a.b.c": {rule: egress.Rule{Name: long + "." + long + ".a.b.c"}},
		strings.Repeat(long+".", 3) + strings.Repeat("b", 61): {rule: egress.Rule{Name: strings.Repeat(long+".", 3) + strings.Repeat("b", 61)}},
	} {
		got, err := egress.ParseRule(text)
		if err != nil || got != want.rule {
			t.Errorf("%s: %+v, %v; want %+v", text, got, err, want.rule)
		}
		if want.form == "" {
			want.form = text
		}
		if got.String() != want.form {
			t.Errorf("the text of %s is %s, want %s", text, got, want.form)
		}
	}
}

func TestTextsThatAreNoRules(t *testing.T) {
	long := strings.Repeat("a", 64)
	for text, reason := range map[string]string{
		"":                         "must have an address",
		":443":                     "must have an address",
		"tcp:":                     "must have an address",
		"tcp":                      "a word of the rules' text",
		"public.":                  "a word of the rules' text",
		"sctp:example.com:1":       "must be [tcp:|udp:|icmp:]TARGET",
		"example.com:":             "ports must be",
		"example.com:0":            "ports must be",
		"example.com:65536":        "ports must be",
		"example.com:-1":           "ports must be",
		"example.com:+1":           "ports must be",
		"example.com:9-8":          "ports must be",
		"example.com:1-2-3":        "ports must be",
		"example.com:http":         "ports must be",
		"icmp:example.com:1":       "must be tcp or udp where ports are given",
		"a.*.example.com":          "a * must be the whole first label",
		"*example.com":             "a * must be the whole first label",
		"*.*.example.com":          "a * must be the whole first label",
		"*..":                      "labels between its dots",
		"**":                       "a * must be the whole first label",
		".example.com":             "labels between its dots",
		"example..com":             "labels between its dots",
		"example.com..":            "labels between its dots",
		long + ".com":              "labels between its dots",
		strings.Repeat("a.", 127):  "", // 253 characters
		strings.Repeat("a.", 128):  "must be at most 253",
		"bücher.example":           "punycode",
		"\u212a.example":           "punycode", // the Kelvin sign
		"exa mple.com":             "must be of A-Z",
		" example.com":             "must be of A-Z",
		"example.com\n":            "must be of A-Z",
		`a\.b.example.com`:         "must be of A-Z",
		"http://example.com":       "ports must be",
		"example.com/24":           "an IPv4 network",
		"10.0.0.0/33":              "an IPv4 network",
		"10.0.0.0/08":              "an IPv4 network",
		"10.0.0.1/8":               "for the network say 10.0.0.0/8, for the one address 10.0.0.1",
		"10.0.0":                   "its last label is a number",
		"10.0.0.256":               "its last label is a number",
		"1.2.3.4.":                 "its last label is a number",
		"tcp:80":                   "its last label is a number",
		"::1":                      "IPv6 is dropped",
		"tcp:::1":                  "IPv6 is dropped",
		"[2001:db8::1]:443":        "IPv6, which is dropped",
		"2001:db8::/32":            "IPv6, which is dropped",
		"::ffff:10.0.0.1":          "IPv6 is dropped",
		"[::1]":                    "IPv6 is dropped",
		strings.Repeat("x", 10000): "must be at most 253",
	} {
		_, err := egress.ParseRule(text)
		if bad := (*egress.FieldError)(nil); reason == "" && err != nil || reason != "" && (!errors.As(err, &bad) || !strings.Contains(err.Error(), reason)) {
			t.Errorf("%.80q: %v; want %q", text, err, reason)
		}
		if err != nil && len(err.Error()) > 400 {
			t.Errorf("the error of %.20q has %d bytes", text, len(err.Error()))
		}
	}
}

func TestValidateNamesTheField(t *testing.T) {
	ok := egress.Rule{Name: "Example.com."}
	cidr := netip.MustParsePrefix
	many := make([]egress.Rule, egress.MaxRules)
	for i := range many {
		many[i] = egress.Rule{Name: fmt.Sprintf("n%d.example", i)}
	}
	for _, test := range []struct {
		rules []egress.Rule
		want  string
	}{
		{nil, ""},
		{[]egress.Rule{ok, {Name: "*.example.com"}, {Name: "example.com", Protocol: "tcp"}}, ""},
		{many, ""},
		{append(slices.Clip(many), ok), "Rules 257: must be at most 256"},
		{[]egress.Rule{ok, {Name: "example.com"}}, `Rules[1] "example.com": is Rules[0] again`},
		{[]egress.Rule{{}}, "Rules[0].CIDR"},
		{[]egress.Rule{ok, {Name: "a", CIDR: cidr("10.0.0.0/8")}}, "Rules[1].Name"},
		{[]egress.Rule{{CIDR: cidr("2001:db8::/32")}}, "IPv6 is dropped"},
		{[]egress.Rule{{CIDR: cidr("::ffff:10.0.0.0/104")}}, "IPv6 is dropped"},
		{[]egress.Rule{{CIDR: cidr("10.0.0.1/8")}}, "Rules[0].CIDR"},
		{[]egress.Rule{{CIDR: netip.PrefixFrom(netip.MustParseAddr("10.0.0.0"), 33)}}, "length of 0 to 32"},
		{[]egress.Rule{{Name: "a", Protocol: "sctp"}}, "Rules[0].Protocol"},
		{[]egress.Rule{{Name: "a", FirstPort: 1, LastPort: 1}}, "must be tcp or udp where ports are given"},
		{[]egress.Rule{{Name: "a", Protocol: "tcp", LastPort: 1}}, "Rules[0].FirstPort"},
		{[]egress.Rule{{Name: "a", Protocol: "tcp", FirstPort: 2}}, "set both to it for one port"},
	} {
		err := egress.Policy{Rules: test.rules}.Validate()
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%v: %v; want %q", test.rules, err, test.want)
		}
	}
}

func TestNamesThatRulesMatch(t *testing.T) {
	for _, test := range []struct {
		rule, name string
		want       bool
	}{
		{"example.com", "example.com", true},
		{"example.com", "EXAMPLE.com.", true},
		{"example.com", "www.example.com", false},
		{"example.com", "badexample.com", false},
		{"example.com", "example.com.evil.net", false},
		{"example.com", "example.com..", false},
		{"*.example.com", "www.example.com", true},
		{"*.example.com", "A.b.Example.com.", true},
		{"*.example.com", "example.com", false},
		{"*.example.com", ".example.com", false},
		{"*.example.com", "badexample.com", false},
		{"*.example.com", `evil\.example.com`, false}, // in DNS this is one label below com
		{"*.example.com", "\u212a.example.com", false},
		{"*", "example.com", true},
		{"*", "localhost", true},
		{"*", "", false},
		{"*", ".", false},
		{"*", "a b.example.com", false},
		{"10.0.0.0/8", "10.0.0.1", false},
	} {
		if got := parse(t, test.rule).MatchName(test.name); got != test.want {
			t.Errorf("%s matches %q: %t", test.rule, test.name, got)
		}
	}
	if !(egress.Rule{Name: "Example.com."}).MatchName("example.com") {
		t.Error("a rule's case or its trailing dot means something")
	}
}

func TestDecide(t *testing.T) {
	rules := []string{"example.com:443", "10.1.0.0/16", "udp:public:53", "*.example.com", "192.0.0.0/8", "198.51.100.7", "icmp:198.51.100.8", "93.184.216.34"}
	var policy egress.Policy
	for _, text := range rules {
		policy.Rules = append(policy.Rules, parse(t, text))
	}
	if err := policy.Validate(); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		protocol egress.Protocol
		address  string
		port     uint16
		name     string
		host     bool
		want     string // the rule, "" for none
	}{
		{"tcp", "1.2.3.4", 443, "example.com", false, "example.com:443"},
		{"tcp", "", 443, "Example.com.", false, "example.com:443"},
		{"tcp", "1.2.3.4", 444, "example.com", false, ""},
		{"udp", "1.2.3.4", 443, "example.com", false, ""},
		{"tcp", "1.2.3.4", 443, "", false, ""},
		{"tcp", "127.0.0.1", 443, "example.com", false, ""},
		{"tcp", "169.254.169.254", 443, "example.com", false, ""},
		{"tcp", "::ffff:10.0.0.1", 443, "example.com", false, ""},
		{"tcp", "2001:db8::1", 443, "example.com", false, ""},
		{"tcp", "1.2.3.4", 443, "example.com", true, ""},
		{"tcp", "10.1.2.3", 443, "example.com", false, "10.1.0.0/16"},
		{"sctp", "10.1.2.3", 0, "", false, "10.1.0.0/16"},
		{"tcp", "10.2.0.1", 443, "", false, ""},
		{"tcp", "10.1.2.3", 443, "", true, ""}, // a network doesn't name the host
		{"udp", "8.8.8.8", 53, "", false, "udp:public:53"},
		{"udp", "8.8.8.8", 853, "", false, ""},
		{"udp", "192.168.1.1", 53, "", false, ""},
		{"udp", "127.0.0.53", 53, "", false, ""},
		{"icmp", "1.2.3.4", 0, "www.example.com", false, "*.example.com"},
		{"tcp", "192.1.2.3", 1, "", false, "192.0.0.0/8"},
		{"tcp", "192.168.2.3", 1, "", false, ""}, // the /8 doesn't lie in 192.168/16
		{"tcp", "198.51.100.7", 1, "", false, "198.51.100.7"},
		{"tcp", "198.51.100.8", 1, "", false, ""},
		{"icmp", "198.51.100.8", 0, "", false, "icmp:198.51.100.8"},
		{"tcp", "93.184.216.34", 22, "", true, "93.184.216.34"},
	} {
		flow := egress.Flow{Protocol: test.protocol, Port: test.port, Name: test.name, Host: test.host}
		if test.address != "" {
			flow.Address = netip.MustParseAddr(test.address)
		}
		rule, ok := policy.Decide(flow)
		got := ""
		if ok {
			got = rules[rule]
		}
		if got != test.want || !ok && rule != -1 {
			t.Errorf("%+v: %d %t %q, want %q", flow, rule, ok, got, test.want)
		}
	}
	if rule, ok := (egress.Policy{}).Decide(egress.Flow{Protocol: "tcp", Address: netip.MustParseAddr("1.2.3.4"), Port: 443}); ok || rule != -1 {
		t.Errorf("a policy of no rules allows by rule %d", rule)
	}
}

// TestDecideIsWhatTheTextSays compares with an implementation that knows no netip: numbers, and ranges of them.
func TestDecideIsWhatTheTextSays(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	allowed := 0
	for range 100_000 {
		policy, flow := randomPolicy(random), randomFlow(random)
		want := naive(policy, flow)
		got, ok := policy.Decide(flow)
		if got != want || ok != (want >= 0) {
			t.Fatalf("%v, %+v: rule %d, want %d", policy.Rules, flow, got, want)
		}
		if ok {
			allowed++
		}
	}
	if allowed < 1000 || allowed > 99_000 {
		t.Errorf("%d of 100000 flows were allowed: the test is too one-sided", allowed)
	}
}

// randomAddress is often at an edge of a reserved range.
func randomAddress(random *rand.Rand) netip.Addr {
	ranges := egress.Reserved()
	chosen := ranges[random.IntN(len(ranges))]
	n := number(chosen.Addr()) + []uint32{0, ^uint32(0), 1, 1 << (32 - chosen.Bits()), 1<<(32-chosen.Bits()) - 1, random.Uint32()}[random.IntN(6)]
	return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
}

func randomPolicy(random *rand.Rand) (policy egress.Policy) {
	names := []string{"a.example", "*.example", "*", "*.a.example", "b.test"}
	protocols := []egress.Protocol{"", "tcp", "udp", "icmp"}
	for range random.IntN(4) {
		rule := egress.Rule{Protocol: protocols[random.IntN(4)]}
		if random.IntN(2) == 0 {
			rule.Name = names[random.IntN(len(names))]
		} else {
			rule.CIDR, _ = randomAddress(random).Prefix([]int{0, 3, 4, 8, 10, 12, 15, 16, 24, 25, 32}[random.IntN(11)])
		}
		if rule.Protocol == "tcp" || rule.Protocol == "udp" {
			rule.FirstPort = uint16(random.IntN(5))
			if rule.FirstPort > 0 {
				rule.LastPort = rule.FirstPort + uint16(random.IntN(3))
			}
		}
		policy.Rules = append(policy.Rules, rule)
	}
	return policy
}

func randomFlow(random *rand.Rand) egress.Flow {
	names := []string{"", "a.example", "B.test", "x.a.example.", "example"}
	protocols := []egress.Protocol{"tcp", "udp", "icmp", "gre"}
	return egress.Flow{Protocol: protocols[random.IntN(4)], Address: randomAddress(random), Port: uint16(random.IntN(8)), Name: names[random.IntN(len(names))], Host: random.IntN(8) == 0}
}

func number(addr netip.Addr) uint32 {
	b := addr.As4()
	return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
}

// bounds are the first and the last address, as numbers.
func bounds(prefix netip.Prefix) (first, last uint64) {
	first = uint64(number(prefix.Addr()))
	return first, first + 1<<(32-prefix.Bits()) - 1
}

func naive(policy egress.Policy, flow egress.Flow) int {
	addr := uint64(number(flow.Address))
	reserved, low, high := false, uint64(0), uint64(0)
	for _, prefix := range egress.Reserved() {
		first, last := bounds(prefix)
		if addr >= first && addr <= last {
			reserved, low, high = true, first, last
		}
	}
	for i, rule := range policy.Rules {
		if rule.Protocol != "" && rule.Protocol != flow.Protocol || rule.LastPort != 0 && (flow.Port < rule.FirstPort || flow.Port > rule.LastPort) {
			continue
		}
		if rule.Name != "" {
			if !reserved && !flow.Host && naiveMatch(rule.Name, flow.Name) {
				return i
			}
			continue
		}
		first, last := bounds(rule.CIDR)
		named := !reserved || first >= low && last <= high
		if addr >= first && addr <= last && named && (!flow.Host || first == last) {
			return i
		}
	}
	return -1
}

func naiveMatch(pattern, name string) bool {
	want, got := strings.Split(pattern, "."), strings.Split(strings.ToLower(strings.TrimSuffix(name, ".")), ".")
	if got[0] == "" {
		return false
	}
	for len(want) > 0 && len(got) > 0 && want[len(want)-1] == got[len(got)-1] {
		want, got = want[:len(want)-1], got[:len(got)-1]
	}
	return len(want) == 0 && len(got) == 0 || len(want) == 1 && want[0] == "*" && len(got) > 0
}

func TestReservedRangesDontOverlap(t *testing.T) {
	ranges := egress.Reserved()
	for i, a := range ranges {
		for _, b := range ranges[i+1:] {
			if a.Overlaps(b) {
				t.Errorf("%s overlaps %s", a, b)
			}
		}
		if a.Masked() != a {
			t.Errorf("%s has bits beyond its length", a)
		}
	}
	ranges[0] = netip.MustParsePrefix("1.0.0.0/8")
	if egress.IsReserved(netip.MustParseAddr("1.2.3.4")) || !egress.IsReserved(netip.MustParseAddr("0.2.3.4")) {
		t.Error("a caller changed what is reserved")
	}
	if !egress.IsReserved(netip.MustParseAddr("::ffff:127.0.0.1")) {
		t.Error("an IPv6 address that stands for loopback is not reserved")
	}
}

func TestVerifySNILeavesTCPToNames(t *testing.T) {
	names := egress.Policy{Rules: []egress.Rule{parse(t, "example.com"), parse(t, "udp:example.com:53"), parse(t, "192.0.2.0/24")}}
	locked := egress.Policy{Rules: names.Rules, VerifySNI: true}
	for _, test := range []struct {
		protocol     egress.Protocol
		address      string
		port         uint16
		open, closed int
	}{
		{egress.TCP, "198.41.0.4", 443, 0, 0},
		{egress.UDP, "198.41.0.4", 443, 0, -1},
		{egress.UDP, "198.41.0.4", 53, 0, 1},
		{egress.ICMP, "198.41.0.4", 0, 0, -1},
		{egress.UDP, "192.0.2.7", 443, 2, 2},
	} {
		flow := egress.Flow{Protocol: test.protocol, Address: netip.MustParseAddr(test.address), Port: test.port, Name: "example.com"}
		if got, _ := names.Decide(flow); got != test.open {
			t.Errorf("%+v: rule %d, want %d", flow, got, test.open)
		}
		if got, _ := locked.Decide(flow); got != test.closed {
			t.Errorf("%+v with VerifySNI: rule %d, want %d", flow, got, test.closed)
		}
	}
}

func TestJSON(t *testing.T) {
	policy := egress.Policy{Rules: []egress.Rule{parse(t, "example.com:443"), parse(t, "10.0.0.0/8")}, VerifySNI: true}
	const want = `{"rules":["example.com:443","10.0.0.0/8"],"verify_sni":true}`
	text, err := json.Marshal(policy)
	if err != nil || string(text) != want {
		t.Errorf("%s, %v", text, err)
	}
	var back egress.Policy
	if err := json.Unmarshal(text, &back); err != nil || fmt.Sprint(back) != fmt.Sprint(policy) {
		t.Errorf("%v, %v", back, err)
	}
	if err := json.Unmarshal([]byte(`{"rules":["example.com:0"]}`), &back); err == nil || !strings.Contains(err.Error(), "ports must be") {
		t.Errorf("a bad rule: %v", err)
	}
	if text, err := json.Marshal(egress.Policy{}); err != nil || string(text) != "{}" {
		t.Errorf("the zero policy: %s, %v", text, err)
	}
	if _, err := json.Marshal(egress.Rule{}); err == nil {
		t.Error("a rule of nothing has a text")
	}
}

func FuzzParseRule(f *testing.F) {
	for _, text := range []string{"example.com", "tcp:*.example.com:1-2", "public", "10.0.0.0/8", "udp:1.2.3.4:53", "[::1]:80", "*:443", "a:b:c"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		rule, err := egress.ParseRule(text)
		if err != nil {
			return
		}
		if err := rule.Validate(); err != nil {
			t.Fatalf("%q was read and is not valid: %v", text, err)
		}
		again, err := egress.ParseRule(rule.String())
		if err != nil || again != rule || again.String() != rule.String() {
			t.Fatalf("%q is %+v, its text %s is %+v: %v", text, rule, rule, again, err)
		}
		if rule.Name != "" && rule.Name[0] != '*' && !rule.MatchName(rule.Name) {
			t.Fatalf("%s doesn't match its own name", rule)
		}
	})
}
