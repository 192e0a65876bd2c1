//go:build linux

package foreign

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
)

// some is a packet of which all is known.
var some = Packet{In: "mvm-1", Out: "wan0", InIndex: 3, OutIndex: 4, Source: netip.MustParseAddr("10.64.0.4"), Destination: netip.MustParseAddr("192.0.2.1")}

func meta(key expr.MetaKey) expr.Any { return &expr.Meta{Key: key, Register: 1} }

func ct(key expr.CtKey) expr.Any { return &expr.Ct{Key: key, Register: 1} }

func load(offset, length uint32) expr.Any {
	return &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length}
}

func is(data ...byte) expr.Any { return &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: data} }

func isNot(data ...byte) expr.Any { return &expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: data} }

// has asks for one bit of a word.
func has(bit uint32) []expr.Any {
	return []expr.Any{&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: number(bit), Xor: make([]byte, 4)}, isNot(0, 0, 0, 0)}
}

func extension(states, inverted uint16) expr.Any {
	info := &xt.ConntrackMtinfo3{}
	info.MatchFlags, info.InvertFlags, info.StateMask = uint16(xt.ConntrackState), inverted, states
	return &expr.Match{Name: "conntrack", Rev: 3, Info: info}
}

// sets of the table that rules are tried in.
var sets = map[string]set{
	"links": {elements: []nftables.SetElement{{Key: name("lan0")}, {Key: name("mvm-1")}}},
	"nets": {interval: true, elements: []nftables.SetElement{
		{Key: []byte{0, 0, 0, 0}, IntervalEnd: true}, {Key: []byte{10, 0, 0, 0}}, {Key: []byte{11, 0, 0, 0}, IntervalEnd: true}, {Key: []byte{192, 168, 0, 0}}, {Key: []byte{192, 169, 0, 0}, IntervalEnd: true},
	}},
	"verdicts": {elements: []nftables.SetElement{{Key: number(stateEstablished), VerdictData: &expr.Verdict{Kind: expr.VerdictAccept}}}},
	"pairs":    {elements: []nftables.SetElement{{Key: append(name("mvm-1"), name("wan0")...)}}},
	"ranges":   {interval: true, elements: []nftables.SetElement{{Key: []byte{0, 0, 0, 0}, KeyEnd: []byte{255, 255, 255, 255}}}},
	"empty":    {},
}

func in(set string) expr.Any { return &expr.Lookup{SourceRegister: 1, SetName: set} }

func notIn(set string) expr.Any { return &expr.Lookup{SourceRegister: 1, SetName: set, Invert: true} }

func TestRules(t *testing.T) {
	answer, translated, unknown := some, some, Packet{}
	answer.Established, translated.DNAT = true, true
	drop := expr.Any(&expr.Verdict{Kind: expr.VerdictDrop})
	for i, test := range []struct {
		expressions []expr.Any
		packet      Packet
		dropped     bool
	}{
		{[]expr.Any{drop}, some, true},
		{[]expr.Any{&expr.Counter{}, &expr.Log{}, drop}, some, true},
		{[]expr.Any{&expr.Counter{}}, some, false},
		{[]expr.Any{&expr.Reject{}}, some, true},
		{[]expr.Any{&expr.Target{Name: "REJECT"}}, some, true},
		{[]expr.Any{&expr.Target{Name: "LOG"}, drop}, some, true},
		{[]expr.Any{&expr.Target{Name: "ACCEPT"}, drop}, some, false},
		{[]expr.Any{&expr.Queue{}, drop}, some, false},
		{[]expr.Any{meta(expr.MetaKeyIIFNAME), is(name("mvm-1")...), drop}, some, true},
		{[]expr.Any{meta(expr.MetaKeyIIFNAME), is(name("mvm-10")...), drop}, some, false},
		{[]expr.Any{meta(expr.MetaKeyIIFNAME), is([]byte("mvm")...), drop}, some, true}, // the beginning of a name
		{[]expr.Any{meta(expr.MetaKeyIIFNAME), isNot(name("mvm-1")...), drop}, some, false},
		{[]expr.Any{meta(expr.MetaKeyIIFNAME), isNot(name("lan0")...), drop}, unknown, false}, // nobody knows
		{[]expr.Any{meta(expr.MetaKeyOIFNAME), is(name("wan0")...), drop}, some, true},
		{[]expr.Any{meta(expr.MetaKeyIIF), is(number(3)...), drop}, some, true},
		{[]expr.Any{meta(expr.MetaKeyOIF), is(number(3)...), drop}, some, false},
		{[]expr.Any{meta(expr.MetaKeyOIF), isNot(number(3)...), drop}, unknown, false},
		{[]expr.Any{meta(expr.MetaKeyNFPROTO), is(2), drop}, some, true},
		{[]expr.Any{meta(expr.MetaKeyNFPROTO), is(10), drop}, some, false},
		{[]expr.Any{meta(expr.MetaKeyPROTOCOL), is(8, 0), drop}, some, true},
		{[]expr.Any{meta(expr.MetaKeyL4PROTO), is(6), drop}, some, false},
		{[]expr.Any{meta(expr.MetaKeyL4PROTO), isNot(6), drop}, some, false},
		{[]expr.Any{load(12, 4), is(10, 64, 0, 4), drop}, some, true},
		{[]expr.Any{load(12, 1), is(10), drop}, some, true}, // how nft writes /8
		{[]expr.Any{load(16, 3), is(192, 0, 3), drop}, some, false},
		{[]expr.Any{load(16, 4), isNot(10, 64, 0, 4), drop}, unknown, false},
		{[]expr.Any{load(9, 1), is(6), drop}, some, false}, // the protocol
		{[]expr.Any{load(12, 4), &expr.Range{Op: expr.CmpOpEq, Register: 1, FromData: []byte{10, 0, 0, 0}, ToData: []byte{10, 255, 0, 0}}, drop}, some, true},
		{[]expr.Any{load(12, 4), &expr.Range{Op: expr.CmpOpNeq, Register: 1, FromData: []byte{10, 0, 0, 0}, ToData: []byte{10, 255, 0, 0}}, drop}, some, false},
		{[]expr.Any{load(12, 4), &expr.Cmp{Op: expr.CmpOpGt, Register: 1, Data: []byte{10, 64, 0, 3}}, drop}, some, true},
		{[]expr.Any{load(12, 4), &expr.Cmp{Op: expr.CmpOpLte, Register: 1, Data: []byte{10, 64, 0, 3}}, drop}, some, false},
		{append(append([]expr.Any{ct(expr.CtKeySTATE)}, has(stateEstablished)...), drop), some, false},
		{append(append([]expr.Any{ct(expr.CtKeySTATE)}, has(stateEstablished)...), drop), answer, true},
		{append(append([]expr.Any{ct(expr.CtKeySTATE)}, has(stateNew)...), drop), some, true},
		{append(append([]expr.Any{ct(expr.CtKeySTATUS)}, has(statusDNAT)...), drop), some, false},
		{append(append([]expr.Any{ct(expr.CtKeySTATUS)}, has(statusDNAT)...), drop), translated, true},
		{[]expr.Any{ct(expr.CtKeyDIRECTION), is(1), drop}, some, false},
		{[]expr.Any{ct(expr.CtKeyDIRECTION), is(1), drop}, answer, true},
		{[]expr.Any{ct(expr.CtKeyMARK), isNot(number(1)...), drop}, some, false},
		{[]expr.Any{extension(stateEstablished|stateRelated, 0), drop}, some, false},
		{[]expr.Any{extension(stateEstablished|stateRelated, 0), drop}, answer, true},
		{[]expr.Any{extension(stateEstablished, 1), drop}, some, true}, // inverted
		{[]expr.Any{extension(stateDNAT, 0), drop}, some, false},
		{[]expr.Any{extension(stateDNAT, 0), drop}, translated, true},
		{[]expr.Any{&expr.Match{Name: "conntrack", Info: &xt.ConntrackMtinfo3{ConntrackMtinfo2: xt.ConntrackMtinfo2{ConntrackMtinfoBase: xt.ConntrackMtinfoBase{MatchFlags: uint16(xt.ConntrackStatus)}}}}, drop}, some, false},
		{[]expr.Any{&expr.Match{Name: "state", Info: (*xt.Unknown)(new(number(stateNew)))}, drop}, some, true},
		{[]expr.Any{&expr.Match{Name: "state", Info: (*xt.Unknown)(new(number(stateNew)))}, drop}, answer, false},
		{[]expr.Any{&expr.Match{Name: "comment", Info: new(xt.Comment)}, drop}, some, true},
		{[]expr.Any{&expr.Match{Name: "mark", Info: &xt.Unknown{}}, drop}, some, false},
		{[]expr.Any{&expr.Limit{}, drop}, some, true},
		{[]expr.Any{&expr.Limit{Over: true}, drop}, some, false},
		{[]expr.Any{&expr.Connlimit{Flags: 1}, drop}, some, false},
		{[]expr.Any{meta(expr.MetaKeyIIFNAME), in("links"), drop}, some, true},
		{[]expr.Any{meta(expr.MetaKeyOIFNAME), in("links"), drop}, some, false},
		{[]expr.Any{meta(expr.MetaKeyOIFNAME), notIn("links"), drop}, some, true},
		{[]expr.Any{meta(expr.MetaKeyOIFNAME), notIn("links"), drop}, unknown, false},
		{[]expr.Any{load(12, 4), in("nets"), drop}, some, true},
		{[]expr.Any{load(16, 4), in("nets"), drop}, some, false},
		{[]expr.Any{load(16, 4), notIn("nets"), drop}, some, true},
		{[]expr.Any{load(12, 4), in("empty"), drop}, some, false},
		{[]expr.Any{load(12, 4), notIn("empty"), drop}, some, true},
		{[]expr.Any{load(12, 4), in("ranges"), drop}, some, false}, // is not judged
		{[]expr.Any{load(12, 4), notIn("ranges"), drop}, some, false},
		{[]expr.Any{ct(expr.CtKeySTATE), in("verdicts"), drop}, answer, false},
		{[]expr.Any{ct(expr.CtKeySTATE), in("verdicts"), drop}, some, false}, // a map that has no such key ends the rule
		{[]expr.Any{meta(expr.MetaKeyIIFNAME), &expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 2}, in("pairs"), drop}, some, true},
		{[]expr.Any{meta(expr.MetaKeyOIFNAME), &expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 2}, in("pairs"), drop}, some, false},
		{[]expr.Any{is(0), drop}, some, false}, // what an expression that the library does not know would have loaded
		{[]expr.Any{meta(expr.MetaKeyIIFNAME), &expr.Fib{Register: 1}, isNot(0, 0, 0, 0), drop}, some, false},
		{[]expr.Any{&expr.Immediate{Register: 1, Data: []byte{1}}, is(1), drop}, some, true},
	} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			space := &table{sets: sets}
			if j := (chains{"c": {space.rule(test.expressions)}}).judge("c", accepts, test.packet); j.Dropped != test.dropped {
				t.Errorf("%#v: %+v", test.expressions, j)
			}
		})
	}
}

// TestAcceptingRules end a chain as those that drop do.
func TestAcceptingRules(t *testing.T) {
	space := &table{sets: sets}
	for _, accepting := range [][]expr.Any{
		{&expr.Verdict{Kind: expr.VerdictAccept}}, {ct(expr.CtKeySTATE), in("verdicts")}, {&expr.Target{Name: "ACCEPT"}}, {&expr.Queue{}},
	} {
		answer := some
		answer.Established = true
		if j := (chains{"c": {space.rule(accepting)}}).judge("c", drops, answer); j.Dropped {
			t.Errorf("%#v: %+v", accepting, j)
		}
		if j := (chains{"c": {}}).judge("c", drops, answer); !j.Dropped {
			t.Errorf("without: %+v", j)
		}
	}
}
