//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/egress"
)

func policyCommand() *cobra.Command {
	return group("policy", "Show, replace and try where a machine may connect to", policyShow(), policySet(), policyTest())
}

func policyShow() *cobra.Command {
	return &cobra.Command{
		Use:   "show VM",
		Short: "Print the rules, one a line",
		Args:  count(1, 1),
		RunE: vmVerb(func(ctx context.Context, vm *microvm.VM, _ []string) error {
			policy, err := policyOf(ctx, vm)
			for _, rule := range policy.Rules {
				fmt.Println(rule)
			}
			if policy.VerifySNI {
				fmt.Println("verify-sni")
			}
			return err
		}),
	}
}

func policySet() *cobra.Command {
	var f netFlags
	cmd := &cobra.Command{
		Use:   "set VM [RULE...]",
		Short: "Replace the rules, at once; flows that the new ones don't allow are cut",
		Long:  "set replaces the rules, at once. Without a RULE nothing is allowed. Flows under way that the new rules don't allow are cut, others go on.\n\nA RULE is " + allowUsage[:len(allowUsage)-len("; repeatable")] + ".",
		Args:  count(1, -1),
		RunE: vmVerb(func(ctx context.Context, vm *microvm.VM, args []string) error {
			f.allow = args
			policy, err := f.policy()
			if err != nil {
				return err
			}
			return vm.Update(ctx, microvm.Change{Egress: &policy})
		}),
	}
	cmd.Flags().BoolVar(&f.verifySNI, "verify-sni", false, "let TLS through to a name only when it asks for that name")
	return cmd
}

func policyTest() *cobra.Command {
	var name string
	var host bool
	cmd := &cobra.Command{
		Use:   "test VM PROTOCOL TARGET [PORT]",
		Short: "Say whether a flow would pass, and by which rule; exit with 1 when it would not",
		Args:  count(3, 4),
		RunE: vmVerb(func(ctx context.Context, vm *microvm.VM, args []string) error {
			flow, err := parseFlow(args)
			if err != nil {
				return err
			}
			flow.Host = host || isHosts(flow.Address)
			if name != "" {
				if !isDNSName(name) {
					return usageError{fmt.Errorf("--name %q is no name", name)}
				}
				flow.Name = name
			}
			policy, err := policyOf(ctx, vm)
			if err != nil {
				return err
			}
			rule, ok := policy.Decide(flow)
			if !ok {
				fmt.Println("denied: no rule allows it")
				return status(1)
			}
			fmt.Printf("allowed by %s\n", policy.Rules[rule])
			return nil
		}),
	}
	cmd.Flags().StringVar(&name, "name", "", "the name that the guest resolved to the address")
	cmd.Flags().BoolVar(&host, "host", false, "the address is one of the host's own; those that it has now are known")
	return cmd
}

// parseFlow parses PROTOCOL TARGET [PORT]. What no packet can be is refused: it would be told as denied.
func parseFlow(args []string) (egress.Flow, error) {
	flow := egress.Flow{Protocol: egress.Protocol(strings.ToLower(args[0]))}
	hasPort := flow.Protocol == egress.TCP || flow.Protocol == egress.UDP
	switch {
	case !hasPort && flow.Protocol != egress.ICMP:
		return flow, usageError{fmt.Errorf("%q is no protocol: tcp, udp, icmp", args[0])}
	case hasPort && len(args) < 3:
		return flow, usageError{fmt.Errorf("a flow of %s has a port", flow.Protocol)}
	case !hasPort && len(args) > 2:
		return flow, usageError{fmt.Errorf("a flow of %s has no port", flow.Protocol)}
	}
	if address, err := netip.ParseAddr(args[1]); err == nil {
		flow.Address = address
	} else if isDNSName(args[1]) {
		flow.Name = args[1]
	} else {
		return flow, usageError{fmt.Errorf("%q is neither an address nor a name", args[1])}
	}
	if !hasPort {
		return flow, nil
	}
	port, err := strconv.ParseUint(args[2], 10, 16)
	if err != nil || port == 0 {
		return flow, usageError{fmt.Errorf("%q is no port", args[2])}
	}
	flow.Port = uint16(port)
	return flow, nil
}

// isHosts says whether the host has an address. What can't be found out is not so.
func isHosts(address netip.Addr) bool {
	own, _ := net.InterfaceAddrs()
	return slices.ContainsFunc(own, func(a net.Addr) bool {
		prefix, err := netip.ParsePrefix(a.String())
		return err == nil && prefix.Addr().Unmap() == address
	})
}

// isDNSName says whether a guest can ask for a text as a name that rules can match.
func isDNSName(text string) bool { return egress.Rule{Name: "*"}.MatchName(text) }

// policyOf returns where a machine may connect to.
func policyOf(ctx context.Context, vm *microvm.VM) (egress.Policy, error) {
	info, err := vm.Info(ctx)
	if err != nil {
		return egress.Policy{}, err
	}
	if info.Spec.Network == nil || info.Spec.Network.None {
		return egress.Policy{}, errors.New("the machine has no network interface")
	}
	return info.Spec.Network.Egress, nil
}
