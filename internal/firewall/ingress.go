//go:build linux

package firewall

import (
	"fmt"
	"hash/fnv"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// mark is that of the flows that come in by an entry. It is the same as long as the entry is.
func (in Ingress) mark() uint32 {
	hash := fnv.New32a()
	fmt.Fprint(hash, in.Protocol, in.Port, in.GuestPort, in.From)
	return markPublished | hash.Sum32()&maxID
}

func (s slotTable) publishedMarks() []nftables.SetElement {
	var elements []nftables.SetElement
	seen := map[uint32]bool{}
	for _, in := range s.Ingress {
		if m := in.mark(); !seen[m] {
			seen[m] = true
			elements = append(elements, nftables.SetElement{Key: mark(m), VerdictData: &expr.Verdict{Kind: expr.VerdictGoto, Chain: "published-flow"}})
		}
	}
	return elements
}

// ingressPorts are the elements protocol . port : guest . port.
func (s slotTable) ingressPorts() []nftables.SetElement {
	var elements []nftables.SetElement
	for _, in := range s.Ingress {
		elements = append(elements, nftables.SetElement{
			Key: padded([]byte{protocolNumber(in.Protocol)}, be16(in.Port)), Val: padded(addr(guestAddr()), be16(in.GuestPort)),
		})
	}
	return elements
}

// padded joins the parts of a concatenation: each begins at a multiple of four bytes.
func padded(parts ...[]byte) []byte {
	var out []byte
	for _, part := range parts {
		out = append(out, part...)
		for len(out)%4 != 0 {
			out = append(out, 0)
		}
	}
	return out
}

// addIngress: what comes in from outside and begins a flow, or one that isn't live.
func (s slotTable) addIngress() {
	rules := []match{byMark(publishedMap)}
	for _, in := range s.Ingress {
		from := in.From
		if len(from) == 0 {
			from = []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0)}
		}
		for _, who := range from {
			rules = append(rules, all(
				fromNet(who), protocol(protocolNumber(in.Protocol)), ports(destinationPort(), in.GuestPort, in.GuestPort), ports(originalPort(), in.Port, in.Port), translated(),
				setMark(in.mark()), goTo("arrive"),
			))
		}
	}
	s.add("arrivals", append(rules, dropAs(DropStale))...)
	s.add("arrive",
		all(isNew(), jump(s.arrivalNewCap())),
		all(isNew(), jump(s.arrivalCountCap())),
		byMark(publishedMap),
		dropAs(DropStale),
	)
	s.add("published-flow", all(count(ingressCounter), accept()))
}
