//go:build linux

package foreign

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"

	"github.com/google/nftables"
)

// set is one of nf_tables with its elements, or a map. Elements of intervals are in order, the end of one before the beginning of the next.
type set struct {
	interval bool
	elements []nftables.SetElement
}

// readSet reads a set's elements, and the chains that they name.
func (t *table) readSet(name string) error {
	if _, read := t.sets[name]; read {
		return nil
	}
	s, err := t.conn.GetSetByName(t.table, name)
	if err != nil {
		return fmt.Errorf("set %s: %w", name, err)
	}
	elements, err := t.conn.GetSetElements(s)
	if err != nil {
		return fmt.Errorf("set %s: %w", name, err)
	}
	slices.SortStableFunc(elements, func(a, b nftables.SetElement) int {
		return cmp.Or(bytes.Compare(a.Key, b.Key), ends(b)-ends(a))
	})
	t.sets[name] = set{s.Interval, elements}
	for _, e := range elements {
		if e.VerdictData != nil && e.VerdictData.Chain != "" {
			if err := t.readChain(e.VerdictData.Chain); err != nil {
				return err
			}
		}
	}
	return nil
}

func ends(e nftables.SetElement) int {
	if e.IntervalEnd {
		return 1
	}
	return 0
}

// find looks a key up, which is in registers that load reads by length. Known is false when it is not known.
func (s set) find(load func(length int) []byte) (element nftables.SetElement, found, known bool) {
	if len(s.elements) == 0 {
		return element, false, true
	}
	key := load(len(s.elements[0].Key))
	if key == nil {
		return element, false, false
	}
	for _, e := range s.elements {
		switch {
		case len(e.KeyEnd) > 0: // ranges of concatenations have fields of which nothing is said here
			return element, false, false
		case s.interval && bytes.Compare(e.Key, key) <= 0:
			element, found = e, !e.IntervalEnd
		case !s.interval && bytes.Equal(e.Key, key):
			return e, true, true
		}
	}
	return element, found, true
}
