//go:build linux

package firewall

import (
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"github.com/tangle-network/microvm-runtime/egress"
)

// forwards says whether a rule's flows may be forwarded without the gate.
func (c Config) forwards(r Rule) bool {
	if r.retired() {
		return false
	}
	return r.Name == "" || !c.VerifySNI || r.Protocol == egress.UDP || r.Protocol == egress.ICMP
}

// gates says whether the gate may have flows of a rule: also when VerifySNI was taken away, for those that it still has.
func (c Config) gates(r Rule) bool {
	return c.GatePort != 0 && !r.retired() && r.Name != "" && mayBeTCP(r)
}

func mayBeTCP(r Rule) bool { return r.Protocol == egress.Any || r.Protocol == egress.TCP }

// addPolicy: the rules in their order, and for each its chain, which counts and accepts.
func (s slotTable) addPolicy() {
	var policy []match
	for _, rule := range s.Rules {
		if rule.retired() {
			continue
		}
		s.counters = append(s.counters, ruleName(rule.ID))
		s.addKept(ruleName(rule.ID), all(count(ruleName(rule.ID)), accept()))
		if s.forwards(rule) {
			policy = append(policy, all(s.matches(rule), setMark(rule.ID), goTo("admit")))
		}
	}
	s.add("rules", policy...)
}

// matches is what makes a packet one that a rule allows.
func (s slotTable) matches(r Rule) match {
	m := match{}
	if r.Protocol != egress.Any {
		m = protocol(protocolNumber(r.Protocol))
	}
	return all(s.opens(r), m, ports(destinationPort(), r.FirstPort, r.LastPort))
}

// opens compares the destination.
func (s slotTable) opens(r Rule) match {
	if r.Name != "" {
		return all(header(16, 4), in(nameSet(r.ID)), header(16, 4), notIn(reservedSet), header(16, 4), notIn(hostSet), notTo(s.Subnet))
	}
	m := to(r.CIDR)
	if r.CIDR.IsSingleIP() {
		return m
	}
	if r.CIDR.Overlaps(s.Subnet) && r.CIDR.Bits() < s.Subnet.Bits() {
		m = all(m, notTo(s.Subnet))
	}
	if !withinReserved(r.CIDR) {
		m = all(m, header(16, 4), notIn(reservedSet))
	}
	return all(m, header(16, 4), notIn(hostSet))
}

// withinReserved says whether a CIDR lies wholly in a reserved range.
func withinReserved(cidr netip.Prefix) bool {
	for _, prefix := range egress.Reserved() {
		if prefix.Overlaps(cidr) && prefix.Bits() <= cidr.Bits() {
			return true
		}
	}
	return false
}

// addGate: what comes to the slot's namespace itself, and what comes from there. Only the gate's flows are accepted.
func (s slotTable) addGate() {
	input := []match{all(state(expr.CtStateBitINVALID), dropAs(DropInvalid))}
	var output []match
	if s.GatePort != 0 {
		input = append(input,
			all(comesBy(tap), protocol(protoTCP), ports(destinationPort(), s.GatePort, s.GatePort), translated(), goTo("gate")),
			all(comesBy(uplink), direction(reply), markIn(gatedSet), accept()),
		)
		output = append(output,
			all(goesBy(tap), direction(reply), byMark(gatedMap)),
			all(goesBy(uplink), protocol(protoTCP), meta(expr.MetaKeyMARK, ne32(GateMark)), direction(original), goTo("gate-out")),
		)
		s.addGateChains()
	}
	s.addBase("input", hook(nftables.ChainTypeFilter, nftables.ChainHookInput, 0), append(input, all(comesBy(tap), goTo("drop-denied")), count(DropLocal))...)
	s.addBase("output", hook(nftables.ChainTypeFilter, nftables.ChainHookOutput, 0), append(output, count(DropLocal))...)
}

func (s slotTable) addGateChains() {
	var toGate, marks []match
	for _, rule := range s.Rules {
		switch {
		case rule.retired() || !mayBeTCP(rule):
		case rule.Name == "":
			toGate = append(toGate, all(s.matches(rule), accept()))
		default:
			matches := s.matches(rule)
			if rule.Protocol == egress.Any { // only TCP comes here, but nft reads no redirection that doesn't say so
				matches = all(matches, protocol(protoTCP))
			}
			toGate = append(toGate, all(matches, setMark(rule.ID), redirectTo(s.GatePort)))
			marks = append(marks, all(s.matches(rule), setMark(rule.ID), accept()))
		}
	}
	if s.VerifySNI {
		s.add("to-gate", toGate...)
	}
	s.add("gate-marks", marks...)
	early := base{kind: nftables.ChainTypeFilter, hook: nftables.ChainHookPrerouting, priority: -150, policy: nftables.ChainPolicyAccept} // where the destination isn't translated yet
	s.addBase("gate-again", early,
		all(comesBy(tap), protocol(protoTCP), direction(original), translated(), ct(expr.CtKeyMARK), notIn(gatedSet), goTo("gate-marks")),
	)
	s.add("gate",
		all(isNew(), jump(s.newCap())),
		all(isNew(), jump(s.countCap())),
		byMark(gatedMap),
		dropAs(DropStale),
	)
	s.add("gate-out",
		all(isNew(), closing()),
		all(markIn(gatedSet), accept()),
		jump("gate-marks"),
		dropAs(DropLocal),
	)
}
