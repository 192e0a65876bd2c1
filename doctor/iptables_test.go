//go:build linux

package doctor

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
)

// iptables is what the command of that name makes of its arguments in nf_tables, so that no test needs it: the table filter of family ip, and the arguments that these tests have.
type iptables struct {
	t     *testing.T
	conn  *nftables.Conn
	table *nftables.Table
}

// newIptables works in the calling thread's network namespace.
func newIptables(t *testing.T) *iptables {
	t.Helper()
	conn, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	i := &iptables{t: t, conn: conn}
	i.table = conn.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "filter"})
	return i
}

// restore loads what iptables-save has printed.
func (i *iptables) restore(file string) {
	i.t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		i.t.Fatal(err)
	}
	hooks := map[string]*nftables.ChainHook{"INPUT": nftables.ChainHookInput, "FORWARD": nftables.ChainHookForward, "OUTPUT": nftables.ChainHookOutput}
	for line := range strings.Lines(string(content)) {
		fields := strings.Fields(line)
		switch {
		case strings.HasPrefix(line, ":"):
			chain := &nftables.Chain{Name: fields[0][1:], Table: i.table}
			if hook := hooks[chain.Name]; hook != nil {
				policy := nftables.ChainPolicyAccept
				if fields[1] == "DROP" {
					policy = nftables.ChainPolicyDrop
				}
				chain.Hooknum, chain.Priority, chain.Type, chain.Policy = hook, nftables.ChainPriorityFilter, nftables.ChainTypeFilter, &policy
			}
			i.conn.AddChain(chain)
		case strings.HasPrefix(line, "-"):
			i.rule(fields)
		}
	}
	if err := i.conn.Flush(); err != nil {
		i.t.Fatalf("%s: %v", file, err)
	}
}

// run makes one command, without its name.
func (i *iptables) run(arguments string) {
	i.t.Helper()
	i.rule(strings.Fields(arguments))
	if err := i.conn.Flush(); err != nil {
		i.t.Fatalf("iptables %s: %v", arguments, err)
	}
}

func (i *iptables) rule(arguments []string) {
	rule := &nftables.Rule{Table: i.table, Chain: &nftables.Chain{Name: arguments[1], Table: i.table}}
	op := expr.CmpOpEq
	for at := 2; at < len(arguments); at += 2 {
		if arguments[at] == "!" {
			op = expr.CmpOpNeq
			at--
			continue
		}
		rule.Exprs = append(rule.Exprs, i.argument(arguments[at], arguments[at+1], op)...)
		op = expr.CmpOpEq
	}
	if arguments[0] == "-I" {
		i.conn.InsertRule(rule)
		return
	}
	i.conn.AddRule(rule)
}

// argument is what one becomes, as iptables 1.8 makes it. That of a chain or target is the last, behind a counter.
func (i *iptables) argument(flag, value string, op expr.CmpOp) []expr.Any {
	meta := func(key expr.MetaKey, data []byte) []expr.Any {
		return []expr.Any{&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: op, Register: 1, Data: data}}
	}
	switch flag {
	case "-i":
		return meta(expr.MetaKeyIIFNAME, linkName(value))
	case "-o":
		return meta(expr.MetaKeyOIFNAME, linkName(value))
	case "-p":
		return meta(expr.MetaKeyL4PROTO, []byte{map[string]byte{"icmp": 1, "tcp": 6, "udp": 17}[value]})
	case "-s":
		return address(12, value, op)
	case "-d":
		return address(16, value, op)
	case "--icmp-type":
		kind, err := strconv.Atoi(value)
		if err != nil {
			i.t.Fatal(err)
		}
		return []expr.Any{&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Len: 1}, &expr.Cmp{Op: op, Register: 1, Data: []byte{byte(kind)}}}
	case "-m":
		return nil
	case "--ctstate":
		info := &xt.ConntrackMtinfo3{}
		info.MatchFlags = uint16(xt.ConntrackState | xt.ConntrackStateAlias)
		for state := range strings.SplitSeq(value, ",") {
			info.StateMask |= map[string]uint16{"INVALID": 1, "ESTABLISHED": 2, "RELATED": 4, "NEW": 8, "DNAT": 128}[state]
		}
		return []expr.Any{&expr.Match{Name: "conntrack", Rev: 3, Info: info}}
	case "-j", "-g":
		return []expr.Any{&expr.Counter{}, targetOf(flag, value)}
	}
	i.t.Fatalf("iptables: argument %s", flag)
	return nil
}

func targetOf(flag, name string) expr.Any {
	switch name {
	case "ACCEPT":
		return &expr.Verdict{Kind: expr.VerdictAccept}
	case "DROP":
		return &expr.Verdict{Kind: expr.VerdictDrop}
	case "RETURN":
		return &expr.Verdict{Kind: expr.VerdictReturn}
	case "REJECT":
		return &expr.Target{Name: "REJECT", Info: &xt.Unknown{3, 0, 0, 0}} // IPT_ICMP_PORT_UNREACHABLE
	}
	if flag == "-g" {
		return &expr.Verdict{Kind: expr.VerdictGoto, Chain: name}
	}
	return &expr.Verdict{Kind: expr.VerdictJump, Chain: name}
}

// linkName is a whole one, or the beginning of one that ends in +.
func linkName(name string) []byte {
	if begin, ok := strings.CutSuffix(name, "+"); ok {
		return []byte(begin)
	}
	return append([]byte(name), make([]byte, 16-len(name))...)
}

func address(offset uint32, prefix string, op expr.CmpOp) []expr.Any {
	p := netip.MustParsePrefix(prefix)
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: net.CIDRMask(p.Bits(), 32), Xor: make([]byte, 4)},
		&expr.Cmp{Op: op, Register: 1, Data: p.Addr().AsSlice()},
	}
}

// ufwRule is what `ufw route allow` makes of its arguments: a rule of iptables.
func ufwRule(arguments []string) string {
	rule := "-A ufw-user-forward"
	for at := 0; at < len(arguments); {
		switch arguments[at] {
		case "in", "out":
			rule += map[string]string{"in": " -i ", "out": " -o "}[arguments[at]] + arguments[at+2]
			at += 3
		case "to":
			rule += " -d " + arguments[at+1]
			at += 2
		default:
			panic(fmt.Sprint("ufw: ", arguments))
		}
	}
	return rule + " -j ACCEPT"
}
