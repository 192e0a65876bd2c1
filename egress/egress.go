package egress

import (
	"fmt"
	"net/netip"
	"strconv"
)

// MaxRules is how many rules a policy may have.
const MaxRules = 256

// Policy is where a machine may connect to. The zero value denies everything.
type Policy struct {
	Rules []Rule `json:"rules,omitempty"` // At most [MaxRules], all different. A flow that none of them allows is denied.
	// VerifySNI is the lock for HTTPS: a flow of TLS on TCP that a name rule allows must ask, by SNI, for a name that a rule allows.
	// A flow that a CIDR rule allows is not looked into. Of what is not TCP no name can be seen: a name rule without a protocol is for TCP only then. Optional.
	VerifySNI bool `json:"verify_sni,omitempty"`
}

// Protocol is what a rule or a flow is for.
type Protocol string

// The protocols that rules tell apart.
const (
	Any  Protocol = "" // In a rule: every protocol, also such as no other constant names.
	TCP  Protocol = "tcp"
	UDP  Protocol = "udp"
	ICMP Protocol = "icmp"
)

// Rule allows flows. It has exactly one of CIDR and Name. Its form in JSON is its text.
type Rule struct {
	CIDR     netip.Prefix // IPv4, without bits beyond its length. One address is a /32.
	Name     string       // A name, "*.example.com" for every name below example.com, or "*" for any.
	Protocol Protocol     // Optional.
	// FirstPort and LastPort are a range, both included; the same twice for one port, 0 and 0 for all. They need tcp or udp. Optional.
	FirstPort, LastPort uint16
}

// Flow is a connection, or a first packet, that goes out of a machine.
type Flow struct {
	Protocol Protocol
	Address  netip.Addr // Where it goes. The zero value is an address that is not known yet; then only name rules are asked, and none is taken to be reserved.
	Port     uint16     // 0 where the protocol has none.
	Name     string     // The name that the machine resolved to have Address. Empty where it did not ask.
	Host     bool       // Address is one of the host's own.
}

// Decide says whether the policy allows a flow, and which rule does: the index of the first one that does, -1 when it is denied. The policy must be valid.
func (p Policy) Decide(flow Flow) (rule int, ok bool) {
	for i, r := range p.Rules {
		if p.VerifySNI && r.Name != "" && r.Protocol == Any && flow.Protocol != TCP {
			continue
		}
		if r.allows(flow) {
			return i, true
		}
	}
	return -1, false
}

func (r Rule) allows(flow Flow) bool {
	if r.Protocol != Any && r.Protocol != flow.Protocol {
		return false
	}
	if r.FirstPort != 0 && (flow.Port < r.FirstPort || flow.Port > r.LastPort) {
		return false
	}
	if r.Name == "" {
		return r.MatchAddress(flow.Address, flow.Host)
	}
	return r.MatchName(flow.Name) && !flow.Host && !flow.Address.Is6() && !IsReserved(flow.Address)
}

// MatchAddress says whether the rule is a CIDR that opens the address, for some protocol and port. host says that the address is one of the host's own.
func (r Rule) MatchAddress(addr netip.Addr, host bool) bool {
	if !r.CIDR.Contains(addr) {
		return false
	}
	if host {
		return r.CIDR.Bits() == addr.BitLen()
	}
	for _, prefix := range reserved {
		if prefix.Contains(addr) {
			return prefix.Bits() <= r.CIDR.Bits()
		}
	}
	return true
}

// reserved do not overlap.
var reserved = [...]netip.Prefix{
	prefix4(0, 0, 0, 0, 8), prefix4(10, 0, 0, 0, 8), prefix4(100, 64, 0, 0, 10), prefix4(127, 0, 0, 0, 8), prefix4(169, 254, 0, 0, 16),
	prefix4(172, 16, 0, 0, 12), prefix4(192, 0, 0, 0, 24), prefix4(192, 0, 2, 0, 24), prefix4(192, 168, 0, 0, 16), prefix4(198, 18, 0, 0, 15),
	prefix4(198, 51, 100, 0, 24), prefix4(203, 0, 113, 0, 24), prefix4(224, 0, 0, 0, 4), prefix4(240, 0, 0, 0, 4),
}

func prefix4(a, b, c, d byte, bits int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{a, b, c, d}), bits)
}

// Reserved returns the ranges whose addresses are opened only by a CIDR that lies wholly in one of them. They don't overlap.
func Reserved() []netip.Prefix { return append([]netip.Prefix(nil), reserved[:]...) }

// IsReserved says whether the address is in one of [Reserved]. It is asked about IPv4; of IPv6 only addresses that stand for IPv4 ones are known.
func IsReserved(addr netip.Addr) bool {
	addr = addr.Unmap()
	for _, prefix := range reserved {
		if prefix.Contains(addr) {
			return true
		}
	}
	return false
}

// FieldError says which field is bad, and what is good.
type FieldError struct {
	Field  string // Such as "Rules[2].Name", or "rule" for a text.
	Value  any
	Reason string
}

// Error returns "egress: field value: reason".
func (e *FieldError) Error() string {
	value := fmt.Sprint(e.Value)
	if len(value) > maxShown {
		value = value[:maxShown] + "…"
	}
	if _, ok := e.Value.(string); ok {
		value = strconv.Quote(value)
	}
	return fmt.Sprintf("egress: %s %s: %s", e.Field, value, e.Reason)
}

// maxShown is how much of a bad value an error repeats.
const maxShown = 64
