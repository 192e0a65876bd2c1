//go:build linux

package firewall

import (
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
)

// ruleset is what the tables of ours in a namespace should be.
type ruleset []*table

type table struct {
	nftables.Table
	counters []string
	closing  string // The name of a ct timeout, of addClosing. Optional.
	sets     []*set
	chains   []*chain
}

// chain is a chain with its rules. One that is kept is left as it is where it is there already: its name says all that is in it.
type chain struct {
	name  string
	base  *base
	keep  bool
	rules []match
}

// base is where a base chain hooks in.
type base struct {
	kind     nftables.ChainType
	hook     *nftables.ChainHook
	priority int32
	policy   nftables.ChainPolicy
	device   string
}

// set is a set or a map. One that is kept is left as it is where it is there already; one that grows gets its elements beside those that it has then.
type set struct {
	nftables.Set
	keep     bool
	grows    bool
	capped   bool // its elements count flows, as of addCapped
	elements []nftables.SetElement
}

func (t *table) add(name string, rules ...match) {
	t.chains = append(t.chains, &chain{name: name, rules: rules})
}

func (t *table) addKept(name string, rules ...match) {
	t.chains = append(t.chains, &chain{name: name, keep: true, rules: rules})
}

func (t *table) addBase(name string, at base, rules ...match) {
	t.chains = append(t.chains, &chain{name: name, base: &at, rules: rules})
}

func (t *table) addSet(s nftables.Set, elements ...nftables.SetElement) {
	t.sets = append(t.sets, &set{Set: s, elements: elements})
}

func (t *table) addKeptSet(s nftables.Set, elements ...nftables.SetElement) {
	t.sets = append(t.sets, &set{Set: s, keep: true, elements: elements})
}

func (t *table) addGrowingSet(s nftables.Set, elements ...nftables.SetElement) {
	t.sets = append(t.sets, &set{Set: s, grows: true, elements: elements})
}

// present is what there is of a table.
type present struct {
	chains, sets, counters, timeouts []string
}

// tables are those of the namespace, each by its family and name.
type tableKey struct {
	family nftables.TableFamily
	name   string
}

func (t *table) key() tableKey { return tableKey{t.Family, t.Name} }

// look reads what there is, by names.
func (c *conn) look() (map[tableKey]*present, error) {
	found := map[tableKey]*present{}
	for _, kind := range []netlink.HeaderType{messageGetTable, messageGetChain, messageGetSet, messageGetObject} {
		answers, err := c.request(kind, netlink.Dump, 0, nil)
		if err != nil {
			return nil, fmt.Errorf("read nf_tables: %w", err)
		}
		for _, answer := range answers {
			if len(answer.Data) >= 4 {
				note(found, kind, nftables.TableFamily(answer.Data[0]), values(answer.Data[4:]))
			}
		}
	}
	return found, nil
}

func note(found map[tableKey]*present, kind netlink.HeaderType, family nftables.TableFamily, fields map[uint16][]byte) {
	key := tableKey{family, text(fields[attrTable])}
	if kind == messageGetTable {
		found[key] = &present{}
		return
	}
	p := found[key]
	if p == nil { // made meanwhile: the transaction finds that out
		return
	}
	switch kind {
	case messageGetChain:
		p.chains = append(p.chains, text(fields[attrChainName]))
	case messageGetSet:
		p.sets = append(p.sets, text(fields[attrObjectName]))
	case messageGetObject:
		switch name := text(fields[attrObjectName]); nftables.ObjType(number32(fields[attrObjectType])) {
		case nftables.ObjTypeCounter:
			p.counters = append(p.counters, name)
		case nftables.ObjTypeCtTimeout:
			p.timeouts = append(p.timeouts, name)
		}
	}
}

func text(value []byte) string {
	if n := len(value); n > 0 && value[n-1] == 0 {
		value = value[:n-1]
	}
	return string(value)
}

// attempts is how often a transaction is tried again when others change things between the look and the transaction.
const attempts = 1000

// install makes the namespace's tables what they should be, in one transaction. With afresh nothing is kept.
func (c *conn) install(rules ruleset, afresh bool) error {
	for range attempts {
		generation, err := c.generation()
		if err != nil {
			return err
		}
		there, err := c.look()
		if err != nil {
			return err
		}
		b := newBatch()
		for _, t := range rules {
			t.write(b, there[t.key()], afresh)
		}
		if err := c.transact(b, generation); !errors.Is(err, errChanged) {
			return err
		}
	}
	return errChanged
}

// write puts into the batch what makes a table that is there, or nil, this one.
func (t *table) write(b *batch, there *present, afresh bool) {
	b.addTable(&t.Table)
	if there != nil && afresh {
		b.deleteTable(&t.Table)
		b.addTable(&t.Table)
		there = nil
	}
	if there == nil {
		there = &present{}
	}
	for _, name := range t.counters {
		if !slices.Contains(there.counters, name) {
			b.addCounter(&t.Table, name)
		}
	}
	if t.closing != "" && !slices.Contains(there.timeouts, t.closing) {
		b.addClosing(&t.Table, t.closing)
	}
	t.writeChains(b, there)
	t.writeSets(b, there)
	t.writeRules(b, there)
	t.writeEnds(b, there)
}

// handle is the chain as the library knows it.
func (t *table) handle(c *chain) *nftables.Chain {
	h := &nftables.Chain{Name: c.name, Table: &t.Table}
	if c.base != nil {
		h.Type, h.Hooknum, h.Priority, h.Policy, h.Device = c.base.kind, c.base.hook, new(nftables.ChainPriority(c.base.priority)), &c.base.policy, c.base.device
	}
	return h
}

// writeChains makes chains that are missing, and empties those that are there: nothing refers to anything then.
func (t *table) writeChains(b *batch, there *present) {
	for _, c := range t.chains {
		if !slices.Contains(there.chains, c.name) {
			b.addChain(t.handle(c))
		}
	}
	for _, name := range there.chains {
		if c := t.chain(name); c == nil || !c.keep {
			b.emptyChain(&nftables.Chain{Name: name, Table: &t.Table})
		}
	}
}

func (t *table) chain(name string) *chain {
	for _, c := range t.chains {
		if c.name == name {
			return c
		}
	}
	return nil
}

func (t *table) writeSets(b *batch, there *present) {
	for _, s := range t.sets {
		s.Table = &t.Table
		isThere := slices.Contains(there.sets, s.Name)
		switch {
		case !isThere:
			var further []byte
			if s.capped {
				further = setOfCaps()
			}
			b.addSet(s.Set, further)
		case s.keep:
			continue
		case !s.grows:
			b.emptySet(&s.Set)
		}
		b.addElements(&s.Set, s.elements)
	}
}

func (t *table) writeRules(b *batch, there *present) {
	for _, c := range t.chains {
		if c.keep && slices.Contains(there.chains, c.name) {
			continue
		}
		for i, rule := range c.rules {
			b.addRule(&nftables.Chain{Name: c.name, Table: &t.Table}, i+1, rule)
		}
	}
}

// writeEnds removes what should not be there.
func (t *table) writeEnds(b *batch, there *present) {
	for _, name := range there.chains {
		if t.chain(name) == nil {
			b.deleteChain(&nftables.Chain{Name: name, Table: &t.Table})
		}
	}
	for _, name := range there.sets {
		if !slices.ContainsFunc(t.sets, func(s *set) bool { return s.Name == name }) {
			b.deleteSet(&nftables.Set{Name: name, Table: &t.Table})
		}
	}
	for _, name := range there.counters {
		if !slices.Contains(t.counters, name) {
			b.deleteCounter(&t.Table, name)
		}
	}
}
