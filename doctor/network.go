//go:build linux

package doctor

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/tangle-network/microvm-runtime/firecracker"
	"github.com/tangle-network/microvm-runtime/internal/network"
)

// flowsPerMachine is how many flows a machine may have begun at once, unless its Spec says otherwise. Each has an entry in the host's connection tracking until it ends, and no longer. Those that
// others begin, to published ports, come on top.
const flowsPerMachine = 4096

const setAgain = "any Start or Recover sets it again"

// checkNetwork looks at what leads from machines to the outside. Bare machines have no network.
func checkNetwork(_ context.Context, h host, o firecracker.Options) []Finding {
	if o.Bare {
		return nil
	}
	view, err := h.network(networkOptions(o))
	if err != nil {
		return []Finding{warn("uplink", err.Error(), "look at the host's links and routes (ip link, ip route), or set MICROVM_NETWORK_EGRESS and MICROVM_NETWORK_SUBNET")}
	}
	findings := []Finding{checkUplink(view), checkSubnet(view), checkForwarding(h, view), checkReversePath(h, view), checkTracking(h, view)}
	return append(findings, checkRules(h, view)...)
}

// networkOptions say which network is the driver's.
func networkOptions(o firecracker.Options) network.Options {
	return network.Options{Dir: filepath.Join(o.SocketDir, "network"), ID: network.ID(o.StateDir), Subnet: o.Subnet, Uplink: o.Uplink, MTU: o.MTU}
}

func checkUplink(v network.View) Finding {
	const check = "uplink"
	if v.UplinkIndex == 0 {
		return warn(check, "no link leads out", "give the host a default route, or set MICROVM_NETWORK_EGRESS: until then machines reach the host's neighbours at most")
	}
	if v.Made && v.LinkIndex == 0 {
		return warn(check, fmt.Sprintf("%s leads out, but the machines' link %s is gone", v.Uplink, v.Link), setAgain)
	}
	return ok(check, v.Uplink+" leads out")
}

func checkSubnet(v network.View) Finding {
	const check = "subnet"
	switch {
	case v.Conflict != nil && !v.Made:
		return fail(check, v.Conflict.Error(), "set MICROVM_NETWORK_SUBNET to one that the host has no route to, or unset it: machines with a network can't start")
	case v.Conflict != nil:
		return warn(check, v.Conflict.Error(), "remove that route: what machines send to addresses behind it, and answers to machines, may go astray")
	case v.Made && v.LinkIndex != 0 && v.Back != v.Link:
		return warn(check, fmt.Sprintf("the host's routes lead to machines (%s) by %q, not by %s", v.Machine, v.Back, v.Link),
			"look for rules of routing that say so (ip rule, ip route get): answers to machines go astray")
	case !v.Subnet.IsValid():
		return ok(check, "one that is free is chosen with the first machine")
	}
	return ok(check, v.Subnet.String()+" overlaps no route")
}

// setting reads a number of /proc/sys/net. Nothing when there is none.
func (h host) setting(name string) (int, bool) {
	text, err := os.ReadFile(h.path("/proc/sys/net/" + name))
	if err != nil {
		return 0, false
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	return n, err == nil
}

// checkForwarding: the network sets it for its two links, and who sets ip_forward to 0 resets it for all.
func checkForwarding(h host, v network.View) Finding {
	const check = "forwarding"
	if !v.Made {
		return ok(check, "the first machine's start sets it, for the links that it needs")
	}
	var off, remedies []string
	for _, link := range []string{v.Link, v.Uplink} {
		if n, there := h.setting("ipv4/conf/" + link + "/forwarding"); there && n == 0 {
			off = append(off, fmt.Sprintf("net.ipv4.conf.%s.forwarding is 0", link))
			remedies = append(remedies, fmt.Sprintf("`sysctl -w net/ipv4/conf/%s/forwarding=1`", link))
		}
	}
	if len(off) > 0 {
		return warn(check, strings.Join(off, ", ")+": what comes by it is not forwarded",
			strings.Join(remedies, ", ")+", or "+setAgain+"; look for what resets it, such as net.ipv4.ip_forward=0 in /etc/sysctl.d")
	}
	return ok(check, "what comes by "+v.Link+" and by the uplink is forwarded")
}

// checkReversePath: a strict filter drops answers that come by a link which the host's routes do not lead out by.
func checkReversePath(h host, v network.View) Finding {
	const check, strict, loose = "reverse path", 1, 2
	all, _ := h.setting("ipv4/conf/all/rp_filter")
	own, _ := h.setting("ipv4/conf/" + v.Uplink + "/rp_filter")
	switch {
	case v.Uplink == "" || v.Default == "" || v.Uplink == v.Default:
		return ok(check, "answers come by the link that the host's routes lead out by")
	case max(all, own) == strict:
		return warn(check, fmt.Sprintf("rp_filter of %s is strict, and the host's routes lead out by %s: answers that come by %s are dropped", v.Uplink, v.Default, v.Uplink),
			fmt.Sprintf("`sysctl -w net/ipv4/conf/%s/rp_filter=%d`", v.Uplink, loose))
	}
	return ok(check, fmt.Sprintf("rp_filter of %s is %d", v.Uplink, max(all, own)))
}

func checkTracking(h host, v network.View) Finding {
	const check = "connection tracking"
	most, there := h.setting("netfilter/nf_conntrack_max")
	if !there {
		return ok(check, "it is not loaded yet")
	}
	machines := max(v.Machines, 1)
	evidence := fmt.Sprintf("nf_conntrack_max is %d: enough for %d machines with all the flows that they may have (%d each), and %d have a slot",
		most, most/flowsPerMachine, flowsPerMachine, v.Machines)
	if most < machines*flowsPerMachine {
		return warn(check, evidence,
			fmt.Sprintf("`sysctl -w net/netfilter/nf_conntrack_max=%d`, or give machines a smaller cap: who fills it stops everybody's new flows", machines*flowsPerMachine))
	}
	return ok(check, evidence)
}

// checkRules looks at ours and at other people's.
func checkRules(h host, v network.View) []Finding {
	const masquerade = "masquerade"
	if h.uid != 0 {
		const evidence = "only root can read the host's rules"
		return []Finding{ok(masquerade, evidence), ok(otherFirewalls, evidence)}
	}
	ruleset, err := h.foreign()
	if err != nil {
		const remedy = "modprobe nf_tables, and look at the rules by hand (nft list ruleset)"
		return []Finding{warn(masquerade, err.Error(), remedy), warn(otherFirewalls, err.Error(), remedy)}
	}
	ours := ok(masquerade, "the first machine's start makes the table "+v.Table)
	switch table := "ip " + v.Table; {
	case v.Made && !slices.Contains(ruleset.Tables, table):
		ours = warn(masquerade, "the table "+table+" is gone: machines reach nothing outside, and nothing published reaches them", setAgain+"; look for what flushes all rules, such as a restart of nftables.service")
	case v.Made:
		ours = ok(masquerade, "the table "+table+" is there")
	}
	return append([]Finding{ours}, checkForeign(v, ruleset)...)
}
