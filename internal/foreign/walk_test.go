//go:build linux

package foreign

import (
	"slices"
	"testing"
)

func always(d decision) rule { return func(Packet) decision { return d } }

// from decides on what comes by a link, and lets all else go on.
func from(link string, d decision) rule {
	return func(p Packet) decision {
		if p.In != link {
			return decision{}
		}
		return d
	}
}

func TestChainsAreWalkedAsTheKernelDoes(t *testing.T) {
	accept, drop := decision{verdict: accepts}, decision{verdict: drops}
	back := decision{verdict: returns}
	for _, test := range []struct {
		name    string
		chains  chains
		policy  verdict
		dropped bool
		by      string
		through []string
	}{
		{"an empty chain", chains{}, accepts, false, "", []string{"base"}},
		{"an empty chain that drops", chains{}, drops, true, "its policy drops it", []string{"base"}},
		{"the first rule decides", chains{"base": {always(accept), always(drop)}}, drops, false, "", []string{"base"}},
		{"a rule that does not match", chains{"base": {from("b", accept), always(drop)}}, accepts, true, "rule 2 of chain base drops it", []string{"base"}},
		{"one that does", chains{"base": {from("a", accept), always(drop)}}, accepts, false, "", []string{"base"}},
		{"a return to the policy", chains{"base": {always(back), always(accept)}}, drops, true, "its policy drops it", []string{"base"}},
		{"a called chain drops", chains{"base": {always(decision{calls, "c"}), always(accept)}, "c": {always(drop)}}, accepts, true, "rule 1 of chain c drops it", []string{"base", "c"}},
		{"a called chain comes back", chains{"base": {always(decision{calls, "c"}), always(drop)}, "c": {always(back), always(accept)}}, accepts, true, "rule 2 of chain base drops it", []string{"base", "c"}},
		{"a chain that is gone to does not", chains{"base": {always(decision{goes, "c"}), always(accept)}, "c": {}}, drops, true, "its policy drops it", []string{"base", "c"}},
		{
			"but to who called", chains{"base": {always(decision{calls, "b"}), always(accept)}, "b": {always(decision{goes, "c"}), always(drop)}, "c": {}},
			drops, false, "", []string{"base", "b", "c"},
		},
		{"a chain that is missing", chains{"base": {always(decision{calls, "none"}), always(accept)}}, drops, false, "", []string{"base", "none"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			j := test.chains.judge("base", test.policy, Packet{In: "a"})
			if j.Dropped != test.dropped || j.By != test.by || !slices.Equal(j.Through, test.through) {
				t.Errorf("%+v, want %v by %q through %q", j, test.dropped, test.by, test.through)
			}
		})
	}
}

// TestLoopsEnd, which no kernel has.
func TestLoopsEnd(t *testing.T) {
	loop := always(decision{calls, "base"})
	if j := (chains{"base": {loop, loop}}).judge("base", drops, Packet{}); !j.Dropped {
		t.Errorf("%v", j.Dropped)
	}
}
