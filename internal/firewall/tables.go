//go:build linux

package firewall

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"

	"github.com/tangle-network/microvm-runtime/egress"
)

// Names of what rules refer to.
const (
	liveMap      = "live"      // marks of flows from the guest that may be forwarded
	publishedMap = "published" // marks of flows to the guest
	gatedMap     = "gated"     // marks of flows that the gate has
	gatedSet     = "gates"     // the same, for the gate's own legs
	ingressMap   = "ingress"   // ports that lead to the guest
	hostSet      = "host"      // addresses of the host and the hub
	reservedSet  = "reserved"  // reserved ranges
	deniedSet    = "denied"    // where denied flows went

	dnsCounter     = "dns"
	ingressCounter = "ingress"
)

// Bounds of what a guest can make the kernel keep.
const (
	mostNames      = 4096 // addresses that a rule's name has at the same time
	mostDenied     = 1024
	deniedMemory   = 10 * time.Minute
	mostIngress    = 1024
	deniedGroup    = 1 // NFLOG's
	deniedRate     = 10
	deniedBurst    = 50
	deniedCopied   = 64 // bytes of a packet
	mostHostFields = 1024
)

func ruleName(id uint32) string { return fmt.Sprint("rule-", id) }
func nameSet(id uint32) string  { return fmt.Sprint("name-", id) }

// hook names a hook of family ip.
func hook(kind nftables.ChainType, at *nftables.ChainHook, priority int32) base {
	return base{kind: kind, hook: at, priority: priority, policy: nftables.ChainPolicyDrop}
}

func natHook(at *nftables.ChainHook, priority int32) base {
	return base{kind: nftables.ChainTypeNAT, hook: at, priority: priority, policy: nftables.ChainPolicyAccept}
}

// slotTables is the namespace of a slot.
func slotTables(c Config) ruleset {
	c.Limits = c.Limits.withDefaults()
	t := &table{
		Table: nftables.Table{Name: tableName, Family: nftables.TableFamilyIPv4}, counters: append(packetReasons(), dnsCounter, ingressCounter), closing: closingTimeout,
	}
	s := slotTable{table: t, Config: c}
	s.addSets()
	s.addTranslation()
	s.addCaps()
	s.addForward()
	s.addGate()
	s.addPolicy()
	s.addIngress()
	s.addDenied()
	return ruleset{antispoof(), t, noIPv6()}
}

// slotTable is the table of family ip while it is put together.
type slotTable struct {
	*table
	Config
}

func (s slotTable) addSets() {
	s.addSet(nftables.Set{Name: hostSet, KeyType: nftables.TypeIPAddr, Size: mostHostFields}, addresses(append([]netip.Addr{s.Hub}, s.Host...))...)
	s.addKeptSet(nftables.Set{Name: reservedSet, KeyType: nftables.TypeIPAddr, Interval: true}, intervals(egress.Reserved())...)
	s.addKeptSet(nftables.Set{
		Name: deniedSet, KeyType: nftables.MustConcatSetType(nftables.TypeInetProto, nftables.TypeIPAddr, nftables.TypeInetService),
		HasTimeout: true, Timeout: deniedMemory, Dynamic: true, Size: mostDenied,
	})
	verdicts := func(name string, elements []nftables.SetElement) {
		s.addSet(nftables.Set{Name: name, IsMap: true, KeyType: nftables.TypeMark, DataType: nftables.TypeVerdict, KeyByteOrder: binaryutil.NativeEndian}, elements...)
	}
	live := []nftables.SetElement{{Key: mark(markDNS), VerdictData: &expr.Verdict{Kind: expr.VerdictGoto, Chain: "dns-answer"}}}
	var gatedVerdicts, gates []nftables.SetElement
	for _, rule := range s.Rules {
		if s.forwards(rule) {
			live = append(live, nftables.SetElement{Key: mark(rule.ID), VerdictData: &expr.Verdict{Kind: expr.VerdictGoto, Chain: ruleName(rule.ID)}})
		}
		if s.gates(rule) {
			gatedVerdicts = append(gatedVerdicts, nftables.SetElement{Key: mark(rule.ID), VerdictData: &expr.Verdict{Kind: expr.VerdictGoto, Chain: ruleName(rule.ID)}})
			gates = append(gates, nftables.SetElement{Key: mark(rule.ID)})
		}
		if rule.Name != "" {
			s.addKeptSet(nftables.Set{Name: nameSet(rule.ID), KeyType: nftables.TypeIPAddr, HasTimeout: true, Size: mostNames})
		}
	}
	verdicts(liveMap, live)
	verdicts(gatedMap, gatedVerdicts)
	s.addSet(nftables.Set{Name: gatedSet, KeyType: nftables.TypeMark, KeyByteOrder: binaryutil.NativeEndian}, gates...)
	verdicts(publishedMap, s.publishedMarks())
	s.addSet(nftables.Set{
		Name: ingressMap, IsMap: true, Size: mostIngress, KeyType: nftables.MustConcatSetType(nftables.TypeInetProto, nftables.TypeInetService),
		DataType: nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetService),
	}, s.ingressPorts()...)
}

// addresses are elements of those that are IPv4, each once.
func addresses(list []netip.Addr) []nftables.SetElement {
	var elements []nftables.SetElement
	seen := map[netip.Addr]bool{}
	for _, a := range list {
		if a = a.Unmap(); a.Is4() && !seen[a] && len(elements) < mostHostFields {
			seen[a] = true
			elements = append(elements, nftables.SetElement{Key: addr(a)})
		}
	}
	return elements
}

// intervals are elements of prefixes that are in order: the first address, and the one behind the last where there is one. Neighbours are joined.
func intervals(prefixes []netip.Prefix) []nftables.SetElement {
	var elements []nftables.SetElement
	for _, prefix := range prefixes {
		behind := lastOf(prefix).Next()
		if n := len(elements); n > 0 && elements[n-1].IntervalEnd && string(elements[n-1].Key) == string(addr(prefix.Addr())) {
			elements = elements[:n-1]
		} else {
			elements = append(elements, nftables.SetElement{Key: addr(prefix.Addr())})
		}
		if behind.IsValid() {
			elements = append(elements, nftables.SetElement{Key: addr(behind), IntervalEnd: true})
		}
	}
	return elements
}

func lastOf(prefix netip.Prefix) netip.Addr {
	b := prefix.Addr().As4()
	for bit := prefix.Bits(); bit < 32; bit++ {
		b[bit/8] |= 0x80 >> (bit % 8)
	}
	return netip.AddrFrom4(b)
}

// addTranslation: to the resolver, to the gate, from outside to the guest; and everything that leaves has the slot's address.
func (s slotTable) addTranslation() {
	guest, gateway := netip.PrefixFrom(guestAddr(), 32), netip.PrefixFrom(gatewayAddr(), 32)
	dns := func(n byte) match {
		return all(comesBy(tap), to(gateway), protocol(n), ports(destinationPort(), 53, 53), translateTo(s.Hub, 53))
	}
	rules := []match{dns(protoUDP), dns(protoTCP)}
	if s.VerifySNI {
		rules = append(rules, all(comesBy(tap), protocol(protoTCP), goTo("to-gate")))
	}
	rules = append(rules, all(comesBy(uplink), to(netip.PrefixFrom(s.Slot, 32)), match{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: register},
		&expr.Payload{DestRegister: second, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
	}, translateBy(ingressMap)))
	s.addBase("prerouting", natHook(nftables.ChainHookPrerouting, -100), rules...)
	s.addBase("postrouting", natHook(nftables.ChainHookPostrouting, 100),
		all(goesBy(uplink), fromNet(guest), sourceAs(s.Slot)),
	)
}

func capChain(kind string, numbers ...int) string {
	for _, n := range numbers {
		kind += fmt.Sprint("-", n)
	}
	return kind
}

func (s slotTable) newCap() string { return capChain("new", s.Limits.NewPerSecond, s.Limits.NewBurst) }
func (s slotTable) dnsCap() string { return capChain("dns", s.Limits.DNSPerSecond, s.Limits.DNSBurst) }
func (s slotTable) countCap() string {
	return capChain("flows", s.Limits.Connections)
}
func (s slotTable) arrivalNewCap() string {
	return capChain("arrival-new", s.Limits.NewPerSecond, s.Limits.NewBurst)
}
func (s slotTable) arrivalCountCap() string {
	return capChain("arrival-flows", s.Limits.Connections)
}

// addCaps: chains that drop what is too much and let others return.
func (s slotTable) addCaps() {
	s.addKept(s.newCap(), all(over(s.Limits.NewPerSecond, s.Limits.NewBurst), dropAs(DropNewLimit)))
	s.addKept(s.countCap(), all(moreFlowsThan(s.Limits.Connections), dropAs(DropConnectionLimit)), closing())
	s.addKept(s.dnsCap(), all(over(s.Limits.DNSPerSecond, s.Limits.DNSBurst), dropAs(DropDNSLimit)))
	s.addKept(s.arrivalNewCap(), all(over(s.Limits.NewPerSecond, s.Limits.NewBurst), dropAs(DropNewLimit)))
	s.addKept(s.arrivalCountCap(), all(moreFlowsThan(s.Limits.Connections), dropAs(DropConnectionLimit)), closing())
}

// isNew says that nothing came back yet.
func isNew() match { return state(expr.CtStateBitNEW) }

func (s slotTable) addForward() {
	outward, inward := all(comesBy(tap), goesBy(uplink)), all(comesBy(uplink), goesBy(tap))
	rules := []match{all(state(expr.CtStateBitINVALID), dropAs(DropInvalid))}
	if s.MTU > maxHeader {
		rules = append(rules, clampMSS(s.MTU))
	}
	rules = append(rules,
		all(outward, direction(original), goTo("egress")),
		all(outward, direction(reply), byMark(publishedMap)),
		all(inward, direction(reply), byMark(liveMap)),
		all(inward, direction(original), goTo("arrivals")),
		count(DropStale),
	)
	s.addBase("forward", hook(nftables.ChainTypeFilter, nftables.ChainHookForward, 0), rules...)

	resolver := netip.PrefixFrom(s.Hub, 32)
	dns := func(n byte) match {
		return all(to(resolver), protocol(n), ports(destinationPort(), 53, 53), translated(), goTo("dns"))
	}
	s.add("egress",
		all(hasMark(markDNS), goTo("dns")),
		byMark(liveMap),
		dns(protoUDP), dns(protoTCP),
		jump("rules"),
		goTo("drop-denied"),
	)
	s.add("dns",
		jump(s.dnsCap()),
		all(isNew(), jump(s.countCap())),
		all(setMark(markDNS), goTo("dns-answer")),
	)
	s.add("dns-answer", all(count(dnsCounter), accept()))
	s.add("admit",
		all(isNew(), jump(s.newCap())),
		all(isNew(), jump(s.countCap())),
		byMark(liveMap),
		goTo("drop-denied"),
	)
}

func (s slotTable) addDenied() {
	log := match{&expr.Log{
		Key:   1<<1 | 1<<3 | 1<<4, // the three fields below are set (NFTA_LOG_GROUP, _SNAPLEN, _QTHRESHOLD)
		Group: deniedGroup, Snaplen: deniedCopied, QThreshold: 1,
	}}
	s.add("drop-denied",
		count(DropDenied),
		all(protocol(protoTCP), remember(deniedSet, true, deniedMemory)),
		all(protocol(protoUDP), remember(deniedSet, true, deniedMemory)),
		all(match{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: register}}, differs([]byte{protoTCP}),
			match{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: register}}, differs([]byte{protoUDP}), remember(deniedSet, false, deniedMemory)),
		all(atMost(deniedRate, deniedBurst), log),
		drop(),
	)
}
