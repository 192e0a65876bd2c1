//go:build linux

package firewall

import (
	"bytes"
	"encoding/binary"
	"net"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

var (
	guestHardware = net.HardwareAddr{6, 0, 0xac, 0x10, 0, 2}
	otherHardware = net.HardwareAddr{6, 0, 0xac, 0x10, 0, 3}
	broadcast     = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
)

// rawSocket sends frames from the guest's end, as they are.
type rawSocket struct {
	*machine
	fd      int
	address syscall.SockaddrLinklayer
	gateway net.HardwareAddr
}

func (m *machine) raw() rawSocket {
	m.Helper()
	r := rawSocket{machine: m, fd: -1}
	m.in(m.guest, func(h *netlink.Handle) error {
		link, err := h.LinkByName("eth0")
		if err == nil {
			r.address = syscall.SockaddrLinklayer{Ifindex: link.Attrs().Index}
		}
		return err
	})
	m.in(m.slot, func(h *netlink.Handle) error {
		link, err := h.LinkByName(tap)
		if err == nil {
			r.gateway = link.Attrs().HardwareAddr
		}
		return err
	})
	err := m.guest.Do(func() (err error) {
		r.fd, err = syscall.Socket(syscall.AF_PACKET, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, 0)
		return err
	})
	if err != nil {
		m.Fatal(err)
	}
	m.Cleanup(func() { syscall.Close(r.fd) })
	return r
}

func (r rawSocket) send(frame []byte) {
	r.Helper()
	if err := syscall.Sendto(r.fd, frame, 0, &r.address); err != nil {
		r.Fatal(err)
	}
}

// frame is one of Ethernet.
func frame(to, from net.HardwareAddr, kind uint16, payload []byte) []byte {
	return slices.Concat(to, from, be16(kind), payload)
}

// packet is a UDP packet of IPv4, as the guest would send it to a port that echoes, and what tests change of it.
type packet struct {
	source, destination string
	fragment            uint16
	options             []byte
}

func (p packet) encode() []byte {
	udp := slices.Concat(be16(4242), be16(5000), be16(9), be16(0), []byte("x"))
	ip := slices.Concat([]byte{0x45 + byte(len(p.options)/4), 0}, be16(uint16(20+len(p.options)+len(udp))), be16(1), be16(p.fragment), []byte{64, protoUDP, 0, 0},
		addr(address4(p.source)), addr(address4(p.destination)), p.options)
	var sum uint32
	for i := 0; i < len(ip); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(ip[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(ip[10:], ^uint16(sum))
	return append(ip, udp...)
}

func arpPacket(operation uint16, sender net.HardwareAddr, from, to string) []byte {
	return slices.Concat(be16(1), be16(typeIPv4), []byte{6, 4}, be16(operation), sender, addr(address4(from)), make([]byte, 6), addr(address4(to)))
}

// TestHostFrames sends frames that the guest's own kernel would not.
func TestHostFrames(t *testing.T) {
	m := newWorld(t).machine(1)
	m.allow("public")
	r := m.raw()
	good := packet{source: "172.16.0.2", destination: public1}
	with := func(change func(*packet)) []byte {
		p := good
		change(&p)
		return p.encode()
	}
	tests := []struct {
		name, reason string
		frame        []byte
	}{
		{"another MAC", DropSpoofedMAC, frame(r.gateway, otherHardware, typeIPv4, good.encode())},
		{"another address", DropSpoofedAddress, frame(r.gateway, guestHardware, typeIPv4, with(func(p *packet) { p.source = "172.16.0.1" }))},
		{"a neighbour's address", DropSpoofedAddress, frame(r.gateway, guestHardware, typeIPv4, with(func(p *packet) { p.source = neighbour }))},
		{"a first fragment", DropFragment, frame(r.gateway, guestHardware, typeIPv4, with(func(p *packet) { p.fragment = 0x2000 }))},
		{"a later fragment", DropFragment, frame(r.gateway, guestHardware, typeIPv4, with(func(p *packet) { p.fragment = 100 }))},
		{"a source route", DropOptions, frame(r.gateway, guestHardware, typeIPv4, with(func(p *packet) { p.options = []byte{0x83, 3, 4, 0} }))},
		{"half a header", DropOtherType, frame(r.gateway, guestHardware, typeIPv4, good.encode()[:10])},
		{"IPv6", DropIPv6, frame(net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}, guestHardware, typeIPv6, make([]byte, 40))},
		{"a VLAN", DropOtherType, frame(r.gateway, guestHardware, 0x8100, slices.Concat(be16(7), be16(typeIPv4), good.encode()))},
		{"VLAN 0", DropOtherType, frame(r.gateway, guestHardware, 0x8100, slices.Concat(be16(0), be16(typeIPv4), good.encode()))},
		{"a VLAN in a VLAN", DropOtherType, frame(r.gateway, guestHardware, 0x88a8, slices.Concat(be16(7), be16(0x8100), be16(7), be16(typeIPv4), good.encode()))},
		{"802.3 with LLC", DropOtherType, frame(r.gateway, guestHardware, 40, make([]byte, 40))},
		{"MPLS", DropOtherType, frame(r.gateway, guestHardware, 0x8847, make([]byte, 40))},
		{"ARP of another address", DropARP, frame(broadcast, guestHardware, typeARP, arpPacket(1, guestHardware, "172.16.0.1", "172.16.0.1"))},
		{"ARP with another MAC inside", DropARP, frame(broadcast, guestHardware, typeARP, arpPacket(1, otherHardware, "172.16.0.2", "172.16.0.1"))},
		{"ARP for another", DropARP, frame(broadcast, guestHardware, typeARP, arpPacket(1, guestHardware, "172.16.0.2", neighbour))},
		{"RARP", DropOtherType, frame(broadcast, guestHardware, 0x8035, arpPacket(3, guestHardware, "172.16.0.2", "172.16.0.1"))},
		{"ARP of a strange kind", DropARP, frame(broadcast, guestHardware, typeARP, arpPacket(8, guestHardware, "172.16.0.2", "172.16.0.1"))},
	}
	for _, test := range tests {
		before := m.counters()
		r.send(test.frame)
		after := m.counters()
		if got := dropped(before, after); got != test.reason {
			t.Errorf("%s: dropped as %q, want %q", test.name, got, test.reason)
		}
		if after.Rules[1] != before.Rules[1] {
			t.Errorf("%s: it passes", test.name)
		}
	}
	before := m.counters()
	r.send(frame(r.gateway, guestHardware, typeIPv4, good.encode()))
	if after := m.counters(); after.Rules[1].Packets == before.Rules[1].Packets || dropped(before, after) != "" {
		t.Errorf("the same packet with nothing wrong is dropped as %q", dropped(before, after))
	}
}

// TestHostARPIsAnswered asks as the guest's kernel would.
func TestHostARPIsAnswered(t *testing.T) {
	m := newWorld(t).machine(1)
	r := m.raw()
	if err := syscall.Bind(r.fd, &syscall.SockaddrLinklayer{Protocol: binary.NativeEndian.Uint16(be16(typeARP)), Ifindex: r.address.Ifindex}); err != nil {
		t.Fatal(err)
	}
	syscall.SetsockoptTimeval(r.fd, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &syscall.Timeval{Sec: int64(patient / time.Second)})
	r.send(frame(broadcast, guestHardware, typeARP, arpPacket(1, guestHardware, "172.16.0.2", "172.16.0.1")))
	buffer := make([]byte, 128)
	n, _, err := syscall.Recvfrom(r.fd, buffer, 0)
	if err != nil || n < 42 || !bytes.Equal(buffer[22:28], r.gateway) {
		t.Errorf("the answer is %x, %v", buffer[:max(n, 0)], err)
	}
}
