//go:build linux

// Command untrusted runs code that nobody trusts in a machine that may connect to one name and nowhere else, and says what it tried.
//
// It takes its options from the environment, as the microvm command does: MICROVM_IMAGE is what to boot.
package main

import (
	"context"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/signal"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/egress"
	"github.com/tangle-network/microvm-runtime/firecracker"
	"github.com/tangle-network/microvm-runtime/guest"
)

// code is the default of -code: it wants one thing that it may, and three that it may not.
const code = `
try() { if timeout 3 bash -c "exec 3<>/dev/tcp/$1/$2" 2>/dev/null; then echo "$1 port $2: connected"; else echo "$1 port $2: no way"; fi; }
try %[1]s %[2]d
try exfiltration.example 443
try 1.1.1.1 443
try 169.254.169.254 80
`

func main() {
	firecracker.Helper() // first: the policy's names are answered by this program, started once more
	allow := flag.String("allow", "example.com:443", "where the code may connect to, as RULE of microvm policy")
	script := flag.String("code", "", "what bash executes in the machine (default: a few attempts)")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *allow, *script); err != nil {
		fmt.Fprintln(os.Stderr, "untrusted:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, allow, script string) error {
	rule, err := egress.ParseRule(allow)
	if err != nil {
		return err
	}
	if script == "" {
		script = fmt.Sprintf(code, target(rule), max(rule.FirstPort, 1))
	}
	rt, err := firecracker.FromEnv()
	if err != nil {
		return err
	}
	defer rt.Close()
	policy := egress.Policy{Rules: []egress.Rule{rule}}
	vm, err := rt.Create(ctx, fmt.Sprint("untrusted-", time.Now().UnixNano()), microvm.Spec{Network: &microvm.Network{Egress: policy}})
	if err != nil {
		return err
	}
	defer vm.Destroy(context.WithoutCancel(ctx))
	if err := vm.Start(ctx, nil); err != nil {
		return err
	}
	cmd := guest.Command(vm, "bash", "-c", script)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(ctx); err != nil {
		fmt.Println("the code ended with", err)
	}
	return report(ctx, vm, policy)
}

// target is a name or an address that a rule allows.
func target(rule egress.Rule) string {
	if rule.Name != "" {
		return rule.Name
	}
	return rule.CIDR.Addr().String()
}

// report says what passed, what was denied, and what would let it pass.
func report(ctx context.Context, vm *microvm.VM, policy egress.Policy) error {
	stats, err := vm.Stats(ctx)
	if err != nil {
		return err
	}
	for _, rule := range stats.Network.Rules {
		fmt.Printf("allowed by %s: %d packets\n", rule.Rule, rule.Packets)
	}
	for _, flow := range stats.Network.Denied {
		opens := flow.Opens()
		if opens == (egress.Rule{}) {
			fmt.Printf("denied: %q, which is no name that a rule can have\n", flow.Name)
			continue
		}
		fmt.Printf("denied: %s, which the rule %s would let pass\n", text(flow), opens)
		policy.Rules = append(policy.Rules, opens)
	}
	// The same can be asked without a machine: what such a policy would decide.
	metadata := egress.Flow{Protocol: egress.TCP, Address: netip.MustParseAddr("169.254.169.254"), Port: 80}
	if i, ok := policy.Decide(metadata); ok {
		fmt.Printf("with all of these, the metadata server would be open by %s, and by no other: it is a reserved address\n", policy.Rules[i])
	}
	return nil
}

func text(flow microvm.DeniedFlow) string {
	if flow.Name != "" {
		return flow.Name
	}
	return fmt.Sprintf("%s to %s port %d", flow.Protocol, flow.Address, flow.Port)
}
