package egress

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// public is the text of every public address.
const public = "public"

// ParseRule reads [PROTOCOL:]TARGET[:PORT[-PORT]]; the package's documentation says what that means. What it returns is valid, and its name in lower case without a trailing dot.
// Errors are of *[FieldError].
func ParseRule(text string) (Rule, error) {
	rule, reason := parse(lower(text))
	if reason == "" {
		if bad := rule.check(); bad != nil {
			reason = bad.Reason
		}
	}
	if reason != "" {
		return Rule{}, &FieldError{"rule", text, reason}
	}
	rule.Name = normal(rule.Name)
	return rule, nil
}

// parse returns why it can't; what it can is yet to be checked.
func parse(text string) (rule Rule, reason string) {
	target := text
	if protocol, rest, ok := strings.Cut(text, ":"); ok && (protocol == string(TCP) || protocol == string(UDP) || protocol == string(ICMP)) {
		rule.Protocol, target = Protocol(protocol), rest
	}
	if _, err := netip.ParseAddr(strings.Trim(target, "[]")); err == nil && strings.Contains(target, ":") {
		return rule, noIPv6
	}
	target, ports, hasPorts := strings.Cut(target, ":")
	switch {
	case strings.Contains(ports, ":") || strings.HasPrefix(target, "["):
		return rule, "must be [tcp:|udp:|icmp:]TARGET[:PORT[-PORT]], and TARGET no IPv6, which is dropped"
	case target == "":
		return rule, "must have an address, a network, a name or the word public"
	}
	if hasPorts && rule.Protocol == Any {
		rule.Protocol = TCP
	}
	if hasPorts {
		if rule.FirstPort, rule.LastPort, reason = parsePorts(ports); reason != "" {
			return rule, reason
		}
	}
	return rule, rule.parseTarget(target)
}

func (r *Rule) parseTarget(target string) (reason string) {
	if target == public {
		r.CIDR = prefix4(0, 0, 0, 0, 0)
		return ""
	}
	if addr, err := netip.ParseAddr(target); err == nil {
		r.CIDR = netip.PrefixFrom(addr, addr.BitLen())
		return ""
	}
	if !strings.Contains(target, "/") {
		r.Name = target
		return ""
	}
	var err error
	if r.CIDR, err = netip.ParsePrefix(target); err != nil {
		return "must be an IPv4 network such as 10.0.0.0/8 where it has a /"
	}
	return ""
}

func parsePorts(text string) (first, last uint16, reason string) {
	from, to, isRange := strings.Cut(text, "-")
	if !isRange {
		to = from
	}
	low, lowErr := strconv.ParseUint(from, 10, 16)
	high, highErr := strconv.ParseUint(to, 10, 16)
	if lowErr != nil || highErr != nil || low == 0 || high < low {
		return 0, 0, "ports must be 1 to 65535, or a range of them such as 8000-8999 (leave the : out for all)"
	}
	return uint16(low), uint16(high), ""
}

// String returns the rule's text, in the one form that two equal rules have in common. The zero rule's is empty.
func (r Rule) String() string {
	var b strings.Builder
	if r.Protocol != Any && (r.Protocol != TCP || r.FirstPort == 0) {
		fmt.Fprintf(&b, "%s:", r.Protocol)
	}
	switch {
	case r.Name != "":
		b.WriteString(normal(r.Name))
	case !r.CIDR.IsValid():
	case r.CIDR == prefix4(0, 0, 0, 0, 0):
		b.WriteString(public)
	case r.CIDR.IsSingleIP():
		b.WriteString(r.CIDR.Addr().String())
	default:
		b.WriteString(r.CIDR.String())
	}
	if r.FirstPort != 0 {
		fmt.Fprintf(&b, ":%d", r.FirstPort)
	}
	if r.FirstPort != r.LastPort {
		fmt.Fprintf(&b, "-%d", r.LastPort)
	}
	return b.String()
}

// MarshalText returns the rule's text, and an error for one that isn't valid.
func (r Rule) MarshalText() ([]byte, error) {
	if err := r.Validate(); err != nil {
		return nil, err
	}
	return []byte(r.String()), nil
}

// UnmarshalText is [ParseRule].
func (r *Rule) UnmarshalText(text []byte) error {
	rule, err := ParseRule(string(text))
	if err == nil {
		*r = rule
	}
	return err
}
