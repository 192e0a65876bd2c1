//go:build linux

package foreign

import (
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"github.com/tangle-network/microvm-runtime/internal/unix"
)

// table is one of nf_tables, as far as chains of the hook forward lead.
type table struct {
	conn   *nftables.Conn
	table  *nftables.Table
	chains chains
	sets   map[string]set
}

// Read reads the rules of the network namespace that the calling thread is in. It needs CAP_NET_ADMIN.
func Read() (ruleset Ruleset, err error) {
	const attempts = 5
	for range attempts {
		before, failed := unix.NftablesGeneration()
		if failed != nil {
			return Ruleset{}, fmt.Errorf("nf_tables: %w", failed)
		}
		ruleset, err = read()
		if after, failed := unix.NftablesGeneration(); failed == nil && after == before {
			break
		} // else somebody changed rules meanwhile, and what was read may be of both
	}
	if err != nil {
		return Ruleset{}, fmt.Errorf("nf_tables: %w", err)
	}
	ruleset.readLegacy()
	return ruleset, nil
}

func read() (ruleset Ruleset, err error) {
	conn, err := nftables.New(nftables.AsLasting())
	if err != nil {
		return ruleset, err
	}
	defer conn.CloseLasting()
	named, err := conn.ListTables()
	if err != nil {
		return ruleset, fmt.Errorf("list tables: %w", err)
	}
	tables := map[string]*table{}
	for _, t := range named {
		if family := familyName(t.Family); family != "" {
			ruleset.Tables = append(ruleset.Tables, family+" "+t.Name)
			tables[family+" "+t.Name] = &table{conn: conn, table: t, chains: chains{}, sets: map[string]set{}}
		}
	}
	listed, err := conn.ListChains()
	if err != nil {
		return ruleset, fmt.Errorf("list chains: %w", err)
	}
	for _, c := range listed {
		family := familyName(c.Table.Family)
		t := tables[family+" "+c.Table.Name]
		if t == nil || c.Type != nftables.ChainTypeFilter || c.Hooknum == nil || *c.Hooknum != *nftables.ChainHookForward {
			continue
		}
		if err := t.readChain(c.Name); err != nil {
			return ruleset, fmt.Errorf("table %s %s: %w", family, c.Table.Name, err)
		}
		ruleset.Chains = append(ruleset.Chains, Chain{Family: family, Table: c.Table.Name, Name: c.Name, Judge: t.judge(c)})
	}
	return ruleset, nil
}

// familyName is that of a family that IPv4 packets meet, or nothing.
func familyName(family nftables.TableFamily) string {
	switch family {
	case nftables.TableFamilyIPv4:
		return "ip"
	case nftables.TableFamilyINet:
		return "inet"
	}
	return ""
}

// readChain reads a chain's rules, and the chains and sets that they name.
func (t *table) readChain(name string) error {
	if _, read := t.chains[name]; read {
		return nil
	}
	rules, err := t.conn.GetRules(t.table, &nftables.Chain{Name: name, Table: t.table})
	if err != nil {
		return fmt.Errorf("chain %s: %w", name, err)
	}
	t.chains[name] = make([]rule, len(rules)) // also that it isn't read again
	for i, r := range rules {
		t.chains[name][i] = t.rule(r.Exprs)
		for _, e := range r.Exprs {
			if err := t.follow(e); err != nil {
				return err
			}
		}
	}
	return nil
}

func (t *table) follow(e expr.Any) error {
	switch e := e.(type) {
	case *expr.Verdict:
		if e.Chain != "" {
			return t.readChain(e.Chain)
		}
	case *expr.Lookup:
		return t.readSet(e.SetName)
	}
	return nil
}

// judge returns what a base chain does with packets.
func (t *table) judge(c *nftables.Chain) func(Packet) Judgement {
	policy := accepts
	if c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop {
		policy = drops
	}
	return func(p Packet) Judgement { return t.chains.judge(c.Name, policy, p) }
}
