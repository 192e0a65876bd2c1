package egress

import (
	"fmt"
	"strings"
)

const (
	maxName  = 253
	maxLabel = 63
)

// Validate says whether the policy makes sense by itself: nil, or a *[FieldError] for the first bad field.
// A rule that is there twice is refused: what is counted for it would be told of one of both.
func (p Policy) Validate() error {
	if len(p.Rules) > MaxRules {
		return &FieldError{"Rules", len(p.Rules), fmt.Sprintf("must be at most %d", MaxRules)}
	}
	seen := make(map[string]int, len(p.Rules))
	for i, rule := range p.Rules {
		if bad := rule.check(); bad != nil {
			bad.Field = fmt.Sprintf("Rules[%d].%s", i, bad.Field)
			return bad
		}
		text := rule.String()
		if first, ok := seen[text]; ok {
			return &FieldError{fmt.Sprintf("Rules[%d]", i), text, fmt.Sprintf("is Rules[%d] again (leave one out)", first)}
		}
		seen[text] = i
	}
	return nil
}

// Validate says whether the rule makes sense: nil, or a *[FieldError].
func (r Rule) Validate() error {
	if bad := r.check(); bad != nil {
		return bad
	}
	return nil
}

func (r Rule) check() *FieldError {
	if bad := r.checkTarget(); bad != nil {
		return bad
	}
	hasPorts := r.FirstPort != 0 || r.LastPort != 0
	switch {
	case r.Protocol != Any && r.Protocol != TCP && r.Protocol != UDP && r.Protocol != ICMP:
		return &FieldError{"Protocol", r.Protocol, "must be tcp, udp, icmp, or empty for every protocol"}
	case hasPorts && r.Protocol != TCP && r.Protocol != UDP:
		return &FieldError{"Protocol", r.Protocol, "must be tcp or udp where ports are given"}
	case hasPorts && r.FirstPort == 0:
		return &FieldError{"FirstPort", r.FirstPort, "must be 1 to 65535, or 0 for all with LastPort 0"}
	case r.LastPort < r.FirstPort:
		return &FieldError{"LastPort", r.LastPort, fmt.Sprintf("must not be below FirstPort %d (set both to it for one port)", r.FirstPort)}
	}
	return nil
}

func (r Rule) checkTarget() *FieldError {
	hasCIDR := r.CIDR.Addr().IsValid()
	switch {
	case hasCIDR && r.Name != "":
		return &FieldError{"Name", r.Name, "can't be set together with CIDR (make two rules)"}
	case !hasCIDR && r.Name == "":
		return &FieldError{"CIDR", "", "must be set, or Name"}
	case hasCIDR && !r.CIDR.Addr().Is4():
		return &FieldError{"CIDR", r.CIDR, noIPv6}
	case hasCIDR && !r.CIDR.IsValid():
		return &FieldError{"CIDR", r.CIDR, "must have a length of 0 to 32"}
	case hasCIDR && r.CIDR.Masked() != r.CIDR:
		return &FieldError{"CIDR", r.CIDR, fmt.Sprintf("has bits beyond its length (for the network say %s, for the one address %s)", r.CIDR.Masked(), r.CIDR.Addr())}
	case hasCIDR:
		return nil
	}
	if reason := badPattern(r.Name); reason != "" {
		return &FieldError{"Name", r.Name, reason}
	}
	return nil
}

const noIPv6 = "IPv6 is dropped, so no rule can open it (use IPv4)"

// badPattern says what is wrong with a rule's name, "" when nothing is.
func badPattern(name string) string {
	name = normal(name)
	if name == "*" {
		return ""
	}
	name = strings.TrimPrefix(name, "*.")
	switch last := name[strings.LastIndexByte(name, '.')+1:]; {
	case name == public || name == string(TCP) || name == string(UDP) || name == string(ICMP):
		return "is a word of the rules' text, and can't be a name"
	case strings.Contains(name, "*"):
		return "a * must be the whole first label, as in *.example.com"
	case last != "" && strings.Trim(last, "0123456789") == "":
		return "must be a name, and its last label is a number (an address needs four numbers of 0 to 255, a network a length: 10.0.0.0/8)"
	}
	return badName(name)
}

// badName says what is wrong with a name in its normal form, "" when nothing is.
func badName(name string) string {
	if len(name) > maxName {
		return fmt.Sprintf("must be at most %d characters", maxName)
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > maxLabel {
			return fmt.Sprintf("labels between its dots must be 1 to %d characters", maxLabel)
		}
		for _, c := range label {
			if c >= 0x80 {
				return "names beyond ASCII must be in punycode (xn--…)"
			}
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return "must be of A-Z a-z 0-9 - _ and dots"
			}
		}
	}
	return ""
}

// normal returns the one form of all spellings of a name. Only ASCII has case in DNS: a Kelvin sign is no k.
func normal(name string) string { return lower(strings.TrimSuffix(name, ".")) }

func lower(text string) string {
	one := func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}
	return strings.Map(one, text)
}

// MatchName says whether the rule is for the name. A text that is no name matches nothing, not even "*".
func (r Rule) MatchName(name string) bool {
	name = normal(name)
	if r.Name == "" || badName(name) != "" {
		return false
	}
	pattern := normal(r.Name)
	if pattern == "*" {
		return true
	}
	if below, ok := strings.CutPrefix(pattern, "*."); ok {
		return len(name) > len(below)+1 && strings.HasSuffix(name, "."+below)
	}
	return name == pattern
}
