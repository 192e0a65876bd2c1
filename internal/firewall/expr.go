//go:build linux

package firewall

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"github.com/tangle-network/microvm-runtime/egress"
)

// match is what has to be true of a packet, and what is then done: the expressions of a rule or of a part of one.
type match []expr.Any

// all puts parts together to a rule.
func all(parts ...match) match { return slices.Concat(parts...) }

// register is what simple comparisons use. The parts of a concatenation are there (its first 32 bits), and in the registers of 32 bits that follow.
const (
	register = 1
	second   = 9
	third    = 10
)

// Numbers of protocols, and of the fields of their headers.
const (
	protoICMP, protoTCP, protoUDP = 1, 6, 17
	typeIPv4, typeARP, typeIPv6   = 0x0800, 0x0806, 0x86dd
	optionMSS                     = 2
	maxHeader                     = 40 // of IPv4 and TCP without options: the MTU less the MSS
)

func be16(n uint16) []byte { return binary.BigEndian.AppendUint16(nil, n) }
func be32(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }
func ne16(n uint16) []byte { return binary.NativeEndian.AppendUint16(nil, n) }
func ne32(n uint32) []byte { return binary.NativeEndian.AppendUint32(nil, n) }

func mark(n uint32) []byte { return ne32(n) }

func equal(data []byte) match {
	return match{&expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: data}}
}
func differs(data []byte) match {
	return match{&expr.Cmp{Op: expr.CmpOpNeq, Register: register, Data: data}}
}

func load(base expr.PayloadBase, offset, length uint32) match {
	return match{&expr.Payload{DestRegister: register, Base: base, Offset: offset, Len: length}}
}

func etherSource() match { return load(expr.PayloadBaseLLHeader, 6, 6) }

// etherType reads the type from the frame: meta protocol is that of the packet in a VLAN's frame.
func etherType(n uint16) match {
	return all(load(expr.PayloadBaseLLHeader, 12, 2), equal(be16(n)))
}

// header reads from the network header: of IPv4 or ARP.
func header(offset, length uint32) match { return load(expr.PayloadBaseNetworkHeader, offset, length) }
func destinationPort() match             { return load(expr.PayloadBaseTransportHeader, 2, 2) }

func addr(a netip.Addr) []byte { b := a.As4(); return b[:] }

// within compares a loaded address with a prefix.
func within(prefix netip.Prefix, op expr.CmpOp) match {
	switch bits := prefix.Bits(); bits {
	case 0:
		return nil
	case 8, 16, 24, 32: // as nft does: fewer bytes instead of a mask
		return match{&expr.Cmp{Op: op, Register: register, Data: addr(prefix.Addr())[:bits/8]}}
	default:
		return match{masked(be32(^uint32(0) << (32 - bits))), &expr.Cmp{Op: op, Register: register, Data: addr(prefix.Addr())}}
	}
}

// address loads an address and compares it: shorter prefixes load less of it.
func address(offset uint32, prefix netip.Prefix, op expr.CmpOp) match {
	if bits := prefix.Bits(); bits%8 == 0 && bits > 0 {
		return all(header(offset, uint32(bits/8)), within(prefix, op))
	}
	if prefix.Bits() == 0 {
		return nil
	}
	return all(header(offset, 4), within(prefix, op))
}

func fromNet(prefix netip.Prefix) match    { return address(12, prefix, expr.CmpOpEq) }
func notFromNet(prefix netip.Prefix) match { return address(12, prefix, expr.CmpOpNeq) }
func to(prefix netip.Prefix) match         { return address(16, prefix, expr.CmpOpEq) }
func notTo(prefix netip.Prefix) match {
	return address(16, prefix, expr.CmpOpNeq)
}

func masked(mask []byte) expr.Any {
	return &expr.Bitwise{SourceRegister: register, DestRegister: register, Len: uint32(len(mask)), Mask: mask, Xor: make([]byte, len(mask))}
}

func meta(key expr.MetaKey, data []byte) match {
	return all(match{&expr.Meta{Key: key, Register: register}}, equal(data))
}

// protocol compares the protocol of the transport header.
func protocol(n byte) match { return meta(expr.MetaKeyL4PROTO, []byte{n}) }

// device is a name in the form that the kernel compares: padded, or when it ends in "*" only what is before that.
func device(name string) []byte {
	if stem := name[:len(name)-1]; name[len(name)-1] == '*' {
		return []byte(stem)
	}
	b := make([]byte, 16)
	copy(b, name)
	return b
}

func comesBy(name string) match { return meta(expr.MetaKeyIIFNAME, device(name)) }
func goesBy(name string) match  { return meta(expr.MetaKeyOIFNAME, device(name)) }
func goesByOther(name string) match {
	return all(match{&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: register}}, differs(device(name)))
}

// ports compares a loaded port, or a range of them; 0 is all.
func ports(loaded match, first, last uint16) match {
	switch {
	case first == 0:
		return nil
	case first == last:
		return all(loaded, equal(be16(first)))
	default:
		return all(loaded, match{&expr.Range{Op: expr.CmpOpEq, Register: register, FromData: be16(first), ToData: be16(last)}})
	}
}

func ct(key expr.CtKey) match { return match{&expr.Ct{Key: key, Register: register}} }

// state says that a flow is in one of the states, which are bits.
func state(bits uint32) match {
	return all(ct(expr.CtKeySTATE), match{masked(ne32(bits))}, differs(ne32(0)))
}

// translated says that a flow's destination was translated (IPS_DST_NAT).
func translated() match {
	return all(ct(expr.CtKeySTATUS), match{masked(ne32(1 << 5))}, differs(ne32(0)))
}

// The directions of a flow.
const (
	original = 0
	reply    = 1
)

func direction(n byte) match { return all(ct(expr.CtKeyDIRECTION), equal([]byte{n})) }

// originalPort is the destination port before translation.
func originalPort() match {
	return match{&expr.Ct{Key: expr.CtKeyPROTODST, Register: register, Direction: original}}
}

func hasMark(n uint32) match { return all(ct(expr.CtKeyMARK), equal(mark(n))) }

func setMark(n uint32) match {
	return match{&expr.Immediate{Register: register, Data: mark(n)}, &expr.Ct{Key: expr.CtKeyMARK, Register: register, SourceRegister: true}}
}

// byMark does what the verdict map says of a flow's mark; what it says nothing of goes on with the next rule.
func byMark(verdicts string) match {
	return all(ct(expr.CtKeyMARK), match{&expr.Lookup{SourceRegister: register, SetName: verdicts, IsDestRegSet: true}}) // register 0: the verdict
}

func markIn(set string) match {
	return all(ct(expr.CtKeyMARK), in(set))
}

func in(set string) match { return match{&expr.Lookup{SourceRegister: register, SetName: set}} }
func notIn(set string) match {
	return match{&expr.Lookup{SourceRegister: register, SetName: set, Invert: true}}
}

func count(counter string) match {
	return match{&expr.Objref{Type: int(nftables.ObjTypeCounter), Name: counter}}
}

func verdict(kind expr.VerdictKind) match { return match{&expr.Verdict{Kind: kind}} }
func accept() match                       { return verdict(expr.VerdictAccept) }
func drop() match                         { return verdict(expr.VerdictDrop) }
func jump(chain string) match             { return match{&expr.Verdict{Kind: expr.VerdictJump, Chain: chain}} }
func goTo(chain string) match             { return match{&expr.Verdict{Kind: expr.VerdictGoto, Chain: chain}} }
func dropAs(counter string) match         { return all(count(counter), drop()) }
func over(perSecond, burst int) match     { return limit(perSecond, burst, true) }
func atMost(perSecond, burst int) match   { return limit(perSecond, burst, false) }
func moreFlowsThan(n int) match {
	return match{&expr.Connlimit{Count: uint32(n), Flags: expr.NFT_CONNLIMIT_F_INV}}
}

func limit(perSecond, burst int, inverted bool) match {
	return match{&expr.Limit{Type: expr.LimitTypePkts, Rate: uint64(perSecond), Over: inverted, Unit: expr.LimitTimeSecond, Burst: uint32(burst)}}
}

// clampMSS lowers the MSS that a SYN says to what fits the MTU. The kernel never raises it.
func clampMSS(mtu int) match {
	const syn, synOrReset = 0x02, 0x06
	return all(protocol(protoTCP), load(expr.PayloadBaseTransportHeader, 13, 1), match{masked([]byte{synOrReset})}, equal([]byte{syn}), match{
		&expr.Immediate{Register: register, Data: be16(uint16(mtu - maxHeader))},
		&expr.Exthdr{SourceRegister: register, Type: optionMSS, Offset: 2, Len: 2, Op: expr.ExthdrOpTcpopt},
	})
}

// translateTo gives packets of a flow another destination, or as source another address.
func translateTo(to netip.Addr, port uint16) match {
	return match{
		&expr.Immediate{Register: register, Data: addr(to)}, &expr.Immediate{Register: register + 1, Data: be16(port)},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(nftables.TableFamilyIPv4), RegAddrMin: register, RegProtoMin: register + 1, Specified: true},
	}
}

func sourceAs(from netip.Addr) match {
	return match{&expr.Immediate{Register: register, Data: addr(from)}, &expr.NAT{Type: expr.NATTypeSourceNAT, Family: uint32(nftables.TableFamilyIPv4), RegAddrMin: register}}
}

func redirectTo(port uint16) match {
	return match{&expr.Immediate{Register: register, Data: be16(port)}, &expr.Redir{RegisterProtoMin: register, Flags: 2}} // NF_NAT_RANGE_PROTO_SPECIFIED
}

// translateBy gives packets the destination that a map has for what is loaded into register and the registers after it.
func translateBy(table string) match {
	return match{
		&expr.Lookup{SourceRegister: register, DestRegister: register, IsDestRegSet: true, SetName: table},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(nftables.TableFamilyIPv4), RegAddrMin: register, RegProtoMin: second},
	}
}

// remember counts the packet at its destination in a set, with the port or without.
func remember(set string, withPort bool, keep time.Duration) match {
	m := match{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: register},
		&expr.Payload{DestRegister: second, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4},
	}
	if withPort {
		m = append(m, &expr.Payload{DestRegister: third, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2})
	} else {
		m = append(m, &expr.Immediate{Register: third, Data: be32(0)})
	}
	return append(m, &expr.Dynset{SrcRegKey: register, SetName: set, Operation: 1, Timeout: keep, Exprs: []expr.Any{&expr.Counter{}}}) // NFT_DYNSET_OP_UPDATE
}

// protocolNumbers are those that rules tell apart.
func protocolNumber(p egress.Protocol) byte {
	switch p {
	case egress.TCP:
		return protoTCP
	case egress.UDP:
		return protoUDP
	default:
		return protoICMP
	}
}

func sourcePort() match { return load(expr.PayloadBaseTransportHeader, 0, 2) }

// isLocal says that the packet's destination is an address of the namespace.
func isLocal() match {
	const local = 2 // RTN_LOCAL
	return all(match{&expr.Fib{Register: register, FlagDADDR: true, ResultADDRTYPE: true}}, equal(ne32(local)))
}
