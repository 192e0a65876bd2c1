//go:build linux

package netlab

import (
	"encoding/binary"
	"net"
	"net/netip"
)

// Frame is a datagram of UDP over IPv4 as a hostile guest may send it. What is zero is as an honest one has it.
type Frame struct {
	From, Via       net.HardwareAddr // GuestMAC, GatewayMAC.
	VLAN            uint16           // A tag of IEEE 802.1Q.
	Source          netip.AddrPort   // GuestAddress, port 4000.
	To              netip.AddrPort
	More            bool   // More fragments follow.
	Offset          uint16 // Of a fragment, in 8 bytes.
	Options         []byte // Of IPv4, a multiple of 4 bytes.
	Text            string
	EtherType       uint16 // Of IPv4.
	DontCountHeader bool   // The checksum of the header is wrong.
}

// Fragments returns two frames: the first has the datagram's first 16 bytes, the second the rest.
func (f Frame) Fragments() [][]byte {
	const first = 16
	whole := f.Bytes()
	start := 14 + 20
	if f.VLAN != 0 {
		start += 4
	}
	f.More = true
	head := append(append([]byte(nil), f.Bytes()[:start]...), whole[start:start+first]...)
	f.More, f.Offset = false, first/8
	tail := append(append([]byte(nil), f.Bytes()[:start]...), whole[start+first:]...)
	for _, part := range [][]byte{head, tail} {
		header := part[start-20 : start]
		put16(header[2:], uint16(len(part)-(start-20)))
		put16(header[10:], 0)
		put16(header[10:], sum(header))
	}
	return [][]byte{head, tail}
}

func put16(b []byte, v uint16) { binary.BigEndian.PutUint16(b, v) }

// Bytes returns the frame.
func (f Frame) Bytes() []byte {
	if f.From == nil {
		f.From = GuestMAC
	}
	if f.Via == nil {
		f.Via = GatewayMAC
	}
	if !f.Source.IsValid() {
		f.Source = netip.AddrPortFrom(GuestAddress, 4000)
	}
	if f.EtherType == 0 {
		f.EtherType = 0x0800
	}
	b := append(append([]byte(nil), f.Via...), f.From...)
	if f.VLAN != 0 {
		b = binary.BigEndian.AppendUint16(append(b, 0x81, 0x00), f.VLAN)
	}
	return append(append(append(binary.BigEndian.AppendUint16(b, f.EtherType), f.header()...), f.Options...), f.datagram()...)
}

// header is that of IPv4, without options.
func (f Frame) header() []byte {
	header := make([]byte, 20)
	header[0], header[8], header[9] = 0x40|byte(5+len(f.Options)/4), 64, 17
	put16(header[2:], uint16(20+len(f.Options)+8+len(f.Text)))
	fragment := f.Offset
	if f.More {
		fragment |= 0x2000
	}
	put16(header[6:], fragment)
	copy(header[12:], f.Source.Addr().AsSlice())
	copy(header[16:], f.To.Addr().AsSlice())
	put16(header[10:], sum(append(append([]byte(nil), header...), f.Options...)))
	if f.DontCountHeader {
		header[10] ^= 1
	}
	return header
}

// datagram is that of UDP, which needs no checksum.
func (f Frame) datagram() []byte {
	b := make([]byte, 8, 8+len(f.Text))
	put16(b, f.Source.Port())
	put16(b[2:], f.To.Port())
	put16(b[4:], uint16(8+len(f.Text)))
	return append(b, f.Text...)
}

// sum is the internet's checksum.
func sum(b []byte) uint16 {
	total := uint32(0)
	for i, v := range b {
		total += uint32(v) << (8 * (1 - i%2))
	}
	for total > 0xffff {
		total = total>>16 + total&0xffff
	}
	return ^uint16(total)
}

// ARP is a message of it. What is zero is as an honest guest asks for its gateway.
type ARP struct {
	From      net.HardwareAddr // Of the frame: GuestMAC.
	Reply     bool
	SenderMAC net.HardwareAddr // GuestMAC.
	Sender    netip.Addr       // GuestAddress.
	Target    netip.Addr       // Gateway.
}

// Bytes returns the frame.
func (a ARP) Bytes() []byte {
	if a.From == nil {
		a.From = GuestMAC
	}
	if a.SenderMAC == nil {
		a.SenderMAC = GuestMAC
	}
	if !a.Sender.IsValid() {
		a.Sender = GuestAddress
	}
	if !a.Target.IsValid() {
		a.Target = Gateway
	}
	operation := byte(1)
	if a.Reply {
		operation = 2
	}
	b := append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, a.From...)
	b = append(b, 0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, operation)
	b = append(append(b, a.SenderMAC...), a.Sender.AsSlice()...)
	return append(append(b, 0, 0, 0, 0, 0, 0), a.Target.AsSlice()...)
}

// IPv6 returns a frame with a datagram of UDP over IPv6 that holds a text.
func IPv6(from, to netip.AddrPort, text string) []byte {
	b := append(append(append([]byte(nil), GatewayMAC...), GuestMAC...), 0x86, 0xdd, 0x60, 0, 0, 0)
	b = append(binary.BigEndian.AppendUint16(b, uint16(8+len(text))), 17, 64)
	b = append(append(b, from.Addr().AsSlice()...), to.Addr().AsSlice()...)
	datagram := Frame{Source: from, To: to, Text: text}.datagram()
	pseudo := append(append(append([]byte(nil), b[22:54]...), 0, 0, 0, byte(len(datagram)), 0, 0, 0, 17), datagram...)
	put16(datagram[6:], sum(pseudo))
	return append(b, datagram...)
}
