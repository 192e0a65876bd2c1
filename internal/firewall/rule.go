//go:build linux

package firewall

import (
	"encoding/json"

	"github.com/tangle-network/microvm-runtime/egress"
)

// Rule is a rule of a machine's policy with the number that its flows have as their mark. One without CIDR and Name allows nothing: it says that the number was given.
type Rule struct {
	ID uint32 // 1 to 2^30-1.
	egress.Rule
}

func (r Rule) retired() bool { return r.Rule == egress.Rule{} }

// jsonRule is Rule's form in JSON. Rule would have that of the egress.Rule in it, which has no number.
type jsonRule struct {
	ID   uint32       `json:"id"`
	Rule *egress.Rule `json:"rule,omitempty"`
}

// MarshalJSON returns {"id": number, "rule": text}.
func (r Rule) MarshalJSON() ([]byte, error) {
	out := jsonRule{ID: r.ID}
	if !r.retired() {
		out.Rule = &r.Rule
	}
	return json.Marshal(out)
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (r *Rule) UnmarshalJSON(text []byte) error {
	var in jsonRule
	if err := json.Unmarshal(text, &in); err != nil {
		return err
	}
	*r = Rule{ID: in.ID}
	if in.Rule != nil {
		r.Rule = *in.Rule
	}
	return nil
}

// AssignIDs numbers the rules of a policy, in its order. Old is what AssignIDs returned for the same machine before, nil at first: rules that were there keep their
// numbers, and others get numbers that none had. Where the highest number belongs to no rule any more, the result ends with a Rule that has only this number, so that
// it is never given again: store all of it.
func AssignIDs(old []Rule, policy egress.Policy) []Rule {
	ids := make(map[string]uint32, len(old))
	var highest uint32
	for _, rule := range old {
		highest = max(highest, rule.ID)
		if !rule.retired() {
			ids[rule.String()] = rule.ID
		}
	}
	out := make([]Rule, 0, len(policy.Rules)+1)
	used := uint32(0)
	for _, rule := range policy.Rules {
		id, ok := ids[rule.String()]
		if !ok {
			highest++
			id = highest
			ids[rule.String()] = id
		}
		used = max(used, id)
		out = append(out, Rule{ID: id, Rule: rule})
	}
	if used < highest {
		out = append(out, Rule{ID: highest})
	}
	return out
}
