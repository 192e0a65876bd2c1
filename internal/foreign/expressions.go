//go:build linux

package foreign

import (
	"bytes"

	"github.com/google/nftables/expr"
)

// rule returns what the rule of some expressions says of a packet.
func (t *table) rule(expressions []expr.Any) rule {
	return func(p Packet) decision {
		e := evaluation{table: t, packet: p}
		return decided(e.run(expressions))
	}
}

// decided is a verdict of nf_tables. What somebody else decides on, such as a program that a queue leads to, is not ours to judge.
func decided(v expr.Verdict) decision {
	switch v.Kind {
	case expr.VerdictAccept, expr.VerdictQueue, expr.VerdictStolen:
		return decision{verdict: accepts}
	case expr.VerdictDrop:
		return decision{verdict: drops}
	case expr.VerdictReturn:
		return decision{verdict: returns}
	case expr.VerdictGoto:
		return decision{goes, v.Chain}
	case expr.VerdictJump:
		return decision{calls, v.Chain}
	}
	return decision{}
}

// evaluation is one rule at work.
type evaluation struct {
	registers
	table  *table
	packet Packet
}

// none is the verdict of a rule that does not match, or has none.
var none = expr.Verdict{Kind: expr.VerdictContinue}

func (w *evaluation) run(expressions []expr.Any) expr.Verdict {
	for _, e := range expressions {
		switch e := e.(type) {
		case *expr.Verdict:
			return *e
		case *expr.Reject:
			return expr.Verdict{Kind: expr.VerdictDrop}
		case *expr.Queue:
			return expr.Verdict{Kind: expr.VerdictQueue}
		case *expr.Target:
			switch target(e.Name) {
			case accepts:
				return expr.Verdict{Kind: expr.VerdictAccept}
			case drops:
				return expr.Verdict{Kind: expr.VerdictDrop}
			}
		case *expr.Lookup:
			element, found, known := w.table.sets[e.SetName].find(func(length int) []byte { return w.load(e.SourceRegister, length) })
			if !known || found == e.Invert {
				return none
			}
			if element.VerdictData != nil {
				return *element.VerdictData
			}
			if e.IsDestRegSet {
				w.store(e.DestRegister, element.Val)
			}
		default:
			if !w.matches(e) {
				return none
			}
		}
	}
	return none
}

// matches makes an expression without verdict, and says whether the rule goes on.
func (w *evaluation) matches(e expr.Any) bool {
	switch e := e.(type) {
	case *expr.Cmp:
		value := w.load(e.Register, len(e.Data))
		return value != nil && compares(e.Op, bytes.Compare(value, e.Data))
	case *expr.Range:
		value := w.load(e.Register, len(e.FromData))
		return value != nil && (bytes.Compare(value, e.FromData) >= 0 && bytes.Compare(value, e.ToData) <= 0) == (e.Op == expr.CmpOpEq)
	case *expr.Match:
		return w.extension(e)
	case *expr.Limit:
		return !e.Over
	case *expr.Quota:
		return !e.Over
	case *expr.Connlimit:
		return e.Flags == 0 // else: over
	case *expr.Counter, *expr.Log, *expr.Notrack, *expr.Objref, *expr.FlowOffload, *expr.Dynset, *expr.Dup:
	default:
		w.compute(e)
	}
	return true
}

func compares(op expr.CmpOp, order int) bool {
	switch op {
	case expr.CmpOpEq:
		return order == 0
	case expr.CmpOpNeq:
		return order != 0
	case expr.CmpOpLt:
		return order < 0
	case expr.CmpOpLte:
		return order <= 0
	case expr.CmpOpGt:
		return order > 0
	case expr.CmpOpGte:
		return order >= 0
	}
	return false
}

// compute makes an expression that writes a register. Of what is not known here all registers are not known afterwards.
func (w *evaluation) compute(e expr.Any) {
	switch e := e.(type) {
	case *expr.Meta:
		if !e.SourceRegister {
			w.store(e.Register, w.meta(e.Key))
		}
	case *expr.Ct:
		if !e.SourceRegister {
			w.store(e.Register, w.ct(e.Key))
		}
	case *expr.Payload:
		if e.OperationType != expr.PayloadLoad {
			return
		}
		w.store(e.DestRegister, nil)
		if e.Base == expr.PayloadBaseNetworkHeader {
			w.store(e.DestRegister, w.packet.header(e.Offset, e.Len))
		}
	case *expr.Immediate:
		w.store(e.Register, e.Data)
	case *expr.Bitwise:
		value := w.load(e.SourceRegister, int(e.Len))
		if value == nil || len(e.Mask) != len(value) || len(e.Xor) != len(value) {
			w.store(e.DestRegister, nil)
			return
		}
		out := make([]byte, len(value))
		for i := range value {
			out[i] = value[i]&e.Mask[i] ^ e.Xor[i]
		}
		w.store(e.DestRegister, out)
	default:
		w.registers = registers{}
	}
}

func (w *evaluation) meta(key expr.MetaKey) []byte {
	const ipv4, etherIPv4 = 2, 0x0800
	switch key {
	case expr.MetaKeyIIFNAME:
		return name(w.packet.In)
	case expr.MetaKeyOIFNAME:
		return name(w.packet.Out)
	case expr.MetaKeyIIF:
		return index(w.packet.InIndex)
	case expr.MetaKeyOIF:
		return index(w.packet.OutIndex)
	case expr.MetaKeyNFPROTO:
		return []byte{ipv4}
	case expr.MetaKeyPROTOCOL:
		return []byte{etherIPv4 >> 8, etherIPv4 & 0xff}
	}
	return nil
}

func (w *evaluation) ct(key expr.CtKey) []byte {
	const original, reply = 0, 1
	switch key {
	case expr.CtKeySTATE:
		return number(w.packet.state())
	case expr.CtKeySTATUS:
		return number(w.packet.status())
	case expr.CtKeyDIRECTION:
		if w.packet.Established {
			return []byte{reply}
		}
		return []byte{original}
	}
	return nil
}
