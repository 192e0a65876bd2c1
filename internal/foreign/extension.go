//go:build linux

package foreign

import (
	"encoding/binary"

	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
)

// extension says whether a match of xtables does: rules that iptables-nft makes are of both worlds.
func (w *evaluation) extension(e *expr.Match) bool {
	switch info := e.Info.(type) {
	case *xt.ConntrackMtinfo1:
		return conntrack(info.MatchFlags, info.InvertFlags, uint16(info.StateMask), w.packet)
	case *xt.ConntrackMtinfo2:
		return conntrack(info.MatchFlags, info.InvertFlags, info.StateMask, w.packet)
	case *xt.ConntrackMtinfo3:
		return conntrack(info.MatchFlags, info.InvertFlags, info.StateMask, w.packet)
	case *xt.Unknown:
		return namedMatch(e.Name, *info, w.packet)
	}
	return e.Name == "comment"
}

// conntrack is the match of that name, of the state and nothing else.
func conntrack(flags, inverted, states uint16, p Packet) bool {
	const state, alias = uint16(xt.ConntrackState), uint16(xt.ConntrackStateAlias)
	return flags&^alias == state && (uint32(states)&p.xtState() != 0) == (inverted&state == 0)
}

// namedMatch is a match by its bytes, as the kernel has them.
func namedMatch(name string, info []byte, p Packet) bool {
	switch name {
	case "comment", "limit":
		return true
	case "state":
		return len(info) >= 4 && binary.NativeEndian.Uint32(info)&p.state() != 0
	}
	return false
}

// target says what a target of xtables, which is no chain, does with a packet.
func target(name string) verdict {
	switch name {
	case "ACCEPT", "NFQUEUE", "QUEUE":
		return accepts
	case "DROP", "REJECT", "TARPIT":
		return drops
	}
	return goOn
}
