//go:build linux

package foreign

import (
	"encoding/binary"
	"net/netip"
)

// Packet is an IPv4 packet that the host is to forward.
type Packet struct {
	In, Out             string     // Names of links. Empty: not known.
	InIndex, OutIndex   int        // Of the links. 0: not known.
	Source, Destination netip.Addr // Not valid: not known.
	Established         bool       // Of a flow that was answered; else the first of one.
	DNAT                bool       // Of a flow whose destination was translated.
}

// Bits of connection tracking's states and of its status (include/uapi/linux/netfilter/nf_conntrack_common.h). Those of xtables are the same, but for the translated ones.
const (
	stateEstablished, stateRelated, stateNew = 2, 4, 8
	stateSNAT, stateDNAT                     = 64, 128 // xt_conntrack.h

	statusSeenReply, statusAssured, statusConfirmed = 1 << 1, 1 << 2, 1 << 3
	statusDNAT                                      = 1 << 5
)

func (p Packet) state() uint32 {
	if p.Established {
		return stateEstablished
	}
	return stateNew
}

func (p Packet) xtState() uint32 {
	if p.DNAT {
		return p.state() | stateDNAT
	}
	return p.state()
}

func (p Packet) status() (status uint32) {
	if p.Established {
		status = statusSeenReply | statusConfirmed
	}
	if p.DNAT {
		status |= statusDNAT
	}
	return status
}

// header returns bytes of the IPv4 header, nil when one of them is not known.
func (p Packet) header(offset, length uint32) []byte {
	const source, destination, end = 12, 16, 20
	if length == 0 || offset < source || offset+length > end || offset < destination && !p.Source.Is4() || offset+length > destination && !p.Destination.Is4() {
		return nil
	}
	var header [end]byte
	for at, a := range map[int]netip.Addr{source: p.Source, destination: p.Destination} {
		if a.Is4() {
			copy(header[at:], a.AsSlice())
		}
	}
	return header[offset : offset+length]
}

// name is a link's name as the kernel compares it, nil when it is not known.
func name(link string) []byte {
	const size = 16 // IFNAMSIZ
	if link == "" {
		return nil
	}
	return append([]byte(link), make([]byte, size-min(len(link), size-1))...)
}

func number(n uint32) []byte { return binary.NativeEndian.AppendUint32(nil, n) }

// index is that of a link, nil when it is not known.
func index(n int) []byte {
	if n == 0 {
		return nil
	}
	return number(uint32(n))
}

// Judgement is what a base chain does with a packet.
type Judgement struct {
	Dropped bool
	By      string   // What drops it, such as "its policy drops it".
	Through []string // The chains that it went through, in order.
}

// Chain is a base chain of the hook forward.
type Chain struct {
	Family string // "ip" or "inet"
	Table  string
	Name   string
	Legacy bool // Of iptables-legacy, which nf_tables know nothing of.
	Judge  func(Packet) Judgement
}

// Ruleset is what the host has.
type Ruleset struct {
	Tables []string // Of nf_tables: family and name, such as "ip filter".
	Chains []Chain  // Of the hook forward, for IPv4, of nf_tables and iptables-legacy.
	// Legacy is why the rules of iptables-legacy, of which there are some, could not be read.
	Legacy error
}
