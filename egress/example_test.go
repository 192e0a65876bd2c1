package egress_test

import (
	"encoding/json"
	"fmt"
	"net/netip"

	"github.com/tangle-network/microvm-runtime/egress"
)

func Example() {
	var policy egress.Policy
	for _, text := range []string{"pypi.org:443", "*.pythonhosted.org:443", "udp:public:123"} {
		rule, err := egress.ParseRule(text)
		if err != nil {
			fmt.Println(err)
			return
		}
		policy.Rules = append(policy.Rules, rule)
	}
	text, err := json.Marshal(policy)
	fmt.Println(string(text), err)
	// Output: {"rules":["pypi.org:443","*.pythonhosted.org:443","udp:public:123"]} <nil>
}

func ExampleParseRule() {
	for _, text := range []string{"tcp:Example.com.:443", "1.1.1.1/32", "10.0.0.1/8", "example.com:0"} {
		rule, err := egress.ParseRule(text)
		fmt.Println(rule, err)
	}
	// Output:
	// example.com:443 <nil>
	// 1.1.1.1 <nil>
	//  egress: rule "10.0.0.1/8": has bits beyond its length (for the network say 10.0.0.0/8, for the one address 10.0.0.1)
	//  egress: rule "example.com:0": ports must be 1 to 65535, or a range of them such as 8000-8999 (leave the : out for all)
}

func ExamplePolicy_Decide() {
	public, _ := egress.ParseRule("public")
	policy := egress.Policy{Rules: []egress.Rule{public}}
	for _, address := range []string{"1.1.1.1", "169.254.169.254"} {
		rule, ok := policy.Decide(egress.Flow{Protocol: egress.TCP, Address: netip.MustParseAddr(address), Port: 80})
		fmt.Println(address, rule, ok)
	}
	// Output:
	// 1.1.1.1 0 true
	// 169.254.169.254 -1 false
}
