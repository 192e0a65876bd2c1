//go:build linux

package foreign

import "fmt"

// verdict is what a rule makes of a packet.
type verdict int

const (
	goOn    verdict = iota // to the next rule
	accepts                // out of the base chain
	drops
	returns // to the rule behind the one that called the chain
	calls   // a chain
	goes    // to a chain, from which there is no way back to this
)

type decision struct {
	verdict
	chain string // Of calls and goes.
}

// rule decides on a packet.
type rule func(Packet) decision

// chains are those of a table, by name.
type chains map[string][]rule

// How deep chains can call each other, and how often: what the kernel allows, and more than anybody needs.
const deepest, mostCalls = 64, 1 << 16

// judge leads a packet through a base chain.
func (c chains) judge(base string, policy verdict, p Packet) Judgement {
	w := walk{chains: c, packet: p}
	v := w.chain(base, 0)
	if v == goOn && policy == drops {
		v, w.by = drops, "its policy drops it"
	}
	return Judgement{Dropped: v == drops, By: w.by, Through: w.through}
}

// walk is a packet's way through chains.
type walk struct {
	chains  chains
	packet  Packet
	by      string
	through []string
}

// chain returns accepts, drops, or goOn when the packet comes back.
func (w *walk) chain(name string, depth int) verdict {
	if depth > deepest || len(w.through) > mostCalls {
		return goOn
	}
	w.through = append(w.through, name)
	for i, rule := range w.chains[name] {
		switch d := rule(w.packet); d.verdict {
		case accepts:
			return accepts
		case drops:
			w.by = fmt.Sprintf("rule %d of chain %s drops it", i+1, name)
			return drops
		case returns:
			return goOn
		case goes:
			return w.chain(d.chain, depth+1)
		case calls:
			if v := w.chain(d.chain, depth+1); v != goOn {
				return v
			}
		}
	}
	return goOn
}
