//go:build linux

package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/egress"
)

const (
	allowUsage   = "[PROTOCOL:]TARGET[:PORT[-PORT]]: let the guest connect there. TARGET is a name, *.NAME, an address, a network, or public; a port without PROTOCOL is of tcp; repeatable"
	publishUsage = "[ADDRESS:]PORT:GUESTPORT[/udp]: let others connect to the guest's port at a port of the host's; repeatable"
	netUsage     = "deny: what --allow names, and nothing else; open: every public address and every name; none: no network interface"
)

// netFlags are the flags that make a Network; create, run and update share them.
type netFlags struct {
	mode      string
	allow     []string
	publish   []string
	verifySNI bool
	receive   string
	transmit  string
}

func (f *netFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.mode, "net", "", netUsage)
	flags.StringArrayVar(&f.allow, "allow", nil, allowUsage)
	flags.StringArrayVarP(&f.publish, "publish", "p", nil, publishUsage)
	flags.BoolVar(&f.verifySNI, "verify-sni", false, "let TLS through to a name only when it asks for that name")
	flags.StringVar(&f.receive, "receive-limit", "", "bps=N, iops=N, bps-burst=N, iops-burst=N: bound what the guest receives; operations are packets")
	flags.StringVar(&f.transmit, "transmit-limit", "", "bound what the guest sends, as --receive-limit")
}

// make returns the network, nil when no flag says anything of it.
func (f *netFlags) make() (*microvm.Network, error) {
	if f.mode == "" && len(f.allow) == 0 && len(f.publish) == 0 && !f.verifySNI && f.receive == "" && f.transmit == "" {
		return nil, nil
	}
	policy, err := f.policy()
	if err != nil {
		return nil, err
	}
	n := &microvm.Network{None: f.mode == "none", Egress: policy}
	for _, text := range f.publish {
		port, err := parsePort(text)
		if err != nil {
			return nil, err
		}
		n.Publish = append(n.Publish, port)
	}
	for _, limit := range []struct {
		text string
		to   **microvm.RateLimit
	}{{f.receive, &n.Receive}, {f.transmit, &n.Transmit}} {
		if limit.text == "" {
			continue
		}
		if *limit.to, err = parseLimit(limit.text); err != nil {
			return nil, err
		}
	}
	return n, nil
}

// policy returns what --net and --allow say.
func (f *netFlags) policy() (egress.Policy, error) {
	policy := egress.Policy{VerifySNI: f.verifySNI}
	switch f.mode {
	case "", "deny", "none":
	case "open":
		policy.Rules = []egress.Rule{{CIDR: netip.PrefixFrom(netip.IPv4Unspecified(), 0)}, {Name: "*"}}
	default:
		return policy, usageError{fmt.Errorf("--net is deny, open or none, not %q", f.mode)}
	}
	for _, text := range f.allow {
		rule, err := egress.ParseRule(text)
		if err != nil {
			return policy, usageError{fmt.Errorf("--allow: %w", err)}
		}
		policy.Rules = append(policy.Rules, rule)
	}
	return policy, nil
}

// parsePort parses [ADDRESS:]PORT:GUESTPORT[/PROTOCOL], as Docker's users write it.
func parsePort(text string) (microvm.Port, error) {
	numbers, protocol, _ := strings.Cut(text, "/")
	port := microvm.Port{Protocol: egress.Protocol(protocol)}
	if protocol == "" {
		port.Protocol = egress.TCP
	}
	wrong := usageError{fmt.Errorf("--publish %q is not [ADDRESS:]PORT:GUESTPORT[/udp]", text)}
	fields := strings.Split(numbers, ":")
	address := netip.IPv4Unspecified()
	if len(fields) == 3 {
		var err error
		if address, err = netip.ParseAddr(fields[0]); err != nil {
			return port, wrong
		}
		fields = fields[1:]
	}
	if len(fields) != 2 {
		return port, wrong
	}
	host, hostErr := strconv.ParseUint(fields[0], 10, 16)
	guest, guestErr := strconv.ParseUint(fields[1], 10, 16)
	if hostErr != nil || guestErr != nil || host == 0 || guest == 0 || port.Protocol != egress.TCP && port.Protocol != egress.UDP {
		return port, wrong
	}
	port.Host, port.Guest = netip.AddrPortFrom(address, uint16(host)), uint16(guest)
	return port, nil
}

// maxDenied is how many denied flows are told.
const maxDenied = 8

// tellDenied says on standard error which of a machine's flows were denied, and which flag lets each pass. What it can't find out it doesn't say: the command's own end counts.
func tellDenied(ctx context.Context, vm *microvm.VM) {
	stats, err := vm.Stats(context.WithoutCancel(ctx))
	if err != nil || stats.Network == nil {
		return
	}
	for i, flow := range stats.Network.Denied {
		if i == maxDenied {
			fmt.Fprintf(os.Stderr, "microvm: and %d more were denied\n", len(stats.Network.Denied)-i)
			return
		}
		fmt.Fprintln(os.Stderr, toldDenied(flow))
	}
}

// toldDenied is what is said of a flow that was denied.
func toldDenied(flow microvm.DeniedFlow) string {
	if flow.Opens() == (egress.Rule{}) {
		return fmt.Sprintf("microvm: denied: %s (%s)", deniedText(flow), noRule)
	}
	return fmt.Sprintf("microvm: denied: %s (--allow %s opens it)", deniedText(flow), flow.Opens())
}

// noRule is said in place of a rule where none opens a flow.
const noRule = "no rule can have this name"

// deniedText is the name that was denied, or the protocol and where to. A name that no rule can have is quoted: the guest has chosen it, and it is printed to a terminal.
func deniedText(flow microvm.DeniedFlow) string {
	switch {
	case flow.Name != "" && flow.Opens() == (egress.Rule{}):
		return strconv.Quote(flow.Name)
	case flow.Name != "":
		return flow.Name
	case flow.Protocol == egress.Any: // a name has led there
		return flow.Address.String()
	case flow.Port == 0:
		return fmt.Sprintf("%s %s", flow.Protocol, flow.Address)
	}
	return fmt.Sprintf("%s %s", flow.Protocol, netip.AddrPortFrom(flow.Address, flow.Port))
}
