//go:build linux

package doctor

import (
	"fmt"
	"strings"

	"github.com/tangle-network/microvm-runtime/internal/foreign"
	"github.com/tangle-network/microvm-runtime/internal/network"
)

const otherFirewalls = "other firewalls"

// Ways that machines' packets take through the host.
const (
	outward = iota
	answers
	published
	ways
)

// traffic is a packet of each way.
func traffic(v network.View) [ways]foreign.Packet {
	in := foreign.Packet{In: v.Uplink, InIndex: v.UplinkIndex, Out: v.Link, OutIndex: v.LinkIndex, Destination: v.Machine}
	answer, first := in, in
	answer.Established, first.DNAT = true, true
	return [ways]foreign.Packet{
		outward: {In: v.Link, InIndex: v.LinkIndex, Out: v.Uplink, OutIndex: v.UplinkIndex, Source: v.Machine}, answers: answer, published: first,
	}
}

// dropped is what a chain of somebody else's drops, and why.
type dropped struct {
	foreign.Chain
	view    network.View
	ways    [ways]bool
	by      [ways]string
	through []string // chains that one of the packets went through
}

// checkForeign says which chains drop what machines send or get. A chain that accepts can't make up for one that drops, so all must be asked; none of them is ever changed.
func checkForeign(v network.View, ruleset foreign.Ruleset) []Finding {
	var findings []Finding
	asked := 0
	for _, chain := range ruleset.Chains {
		if !chain.Legacy && chain.Table == v.Table {
			continue
		}
		asked++
		d := dropped{Chain: chain, view: v}
		for way, packet := range traffic(v) {
			judgement := chain.Judge(packet)
			if d.ways[way], d.by[way] = judgement.Dropped, judgement.By; judgement.Dropped {
				d.through = append(d.through, judgement.Through...)
			}
		}
		if d.ways != [ways]bool{} {
			findings = append(findings, warn(otherFirewalls, d.evidence(), d.remedy()))
		}
	}
	if ruleset.Legacy != nil {
		findings = append(findings, warn(otherFirewalls, "there may be rules of iptables-legacy, which can't be read: "+ruleset.Legacy.Error(),
			"`iptables-legacy -S FORWARD` shows whether they drop what goes by "+v.Link))
	}
	if len(findings) == 0 {
		return []Finding{ok(otherFirewalls, fmt.Sprintf("%d chains of others are asked for what is forwarded; none drops what machines send or get by %s", asked, v.Link))}
	}
	return findings
}

func (d dropped) evidence() string {
	what := [ways]string{
		outward:   "what machines send by " + d.view.Link,
		answers:   "answers to machines",
		published: "what comes to their published ports",
	}
	var parts []string
	for way, drops := range d.ways {
		if drops {
			parts = append(parts, fmt.Sprintf("%s (%s)", what[way], d.by[way]))
		}
	}
	table := d.Family + " " + d.Table
	if d.Legacy {
		table = d.Table + " of iptables-legacy"
	}
	return fmt.Sprintf("%s: chain %s of table %s drops %s", d.owner(), d.Name, table, strings.Join(parts, ", "))
}
