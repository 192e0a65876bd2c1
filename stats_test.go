package microvm_test

import (
	"net/netip"
	"testing"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/egress"
)

func TestDeniedFlowOpens(t *testing.T) {
	at := netip.MustParseAddr("192.0.2.1")
	for _, tc := range []struct {
		flow microvm.DeniedFlow
		want string
	}{
		{microvm.DeniedFlow{Protocol: egress.TCP, Address: at, Port: 443}, "192.0.2.1:443"},
		{microvm.DeniedFlow{Protocol: egress.UDP, Address: at, Port: 53}, "udp:192.0.2.1:53"},
		{microvm.DeniedFlow{Protocol: egress.ICMP, Address: at}, "icmp:192.0.2.1"},
		{microvm.DeniedFlow{Protocol: "47", Address: at}, "192.0.2.1"},
		{microvm.DeniedFlow{Name: "example.com"}, "example.com"},
	} {
		rule := tc.flow.Opens()
		if rule.String() != tc.want || rule.Validate() != nil {
			t.Errorf("%+v opens by %q, %v; want %q", tc.flow, rule, rule.Validate(), tc.want)
		}
		flow := egress.Flow{Protocol: tc.flow.Protocol, Address: tc.flow.Address, Port: tc.flow.Port, Name: tc.flow.Name}
		if _, ok := (egress.Policy{Rules: []egress.Rule{rule}}).Decide(flow); !ok {
			t.Errorf("%s does not open %+v", rule, tc.flow)
		}
		if _, ok := (egress.Policy{}).Decide(flow); ok {
			t.Errorf("%+v is not denied without it", flow)
		}
	}
}

// TestNoRuleForWhatIsNoName: what a guest asks for is its own choice. A rule that it reads as would open more than was denied.
func TestNoRuleForWhatIsNoName(t *testing.T) {
	for _, name := range []string{"public", "*", "*.com", "tcp", "10.0.0.0/8", `1\.1\.1\.1`, "a|reboot", "$HOME", "`id`", "a b", "\x1b[2J"} {
		if rule := (microvm.DeniedFlow{Name: name}).Opens(); rule != (egress.Rule{}) {
			t.Errorf("%q is opened by %q", name, rule)
		}
	}
	for _, name := range []string{"example.com", "EXAMPLE.com.", "_dmarc.example.com", "localhost"} {
		rule := (microvm.DeniedFlow{Name: name}).Opens()
		if _, ok := (egress.Policy{Rules: []egress.Rule{rule}}).Decide(egress.Flow{Protocol: egress.TCP, Name: name}); !ok {
			t.Errorf("%q is opened by %q, which does not open it", name, rule)
		}
	}
}
