//go:build linux

package firewall

import (
	"fmt"
	"net/netip"

	"github.com/tangle-network/microvm-runtime/egress"
)

// What is the same in every slot.
const (
	tap    = "tap0"
	uplink = "up0"
)

func guestAddr() netip.Addr   { return netip.AddrFrom4([4]byte{172, 16, 0, 2}) }
func gatewayAddr() netip.Addr { return netip.AddrFrom4([4]byte{172, 16, 0, 1}) }
func guestMAC() []byte        { return []byte{0x06, 0x00, 0xac, 0x10, 0x00, 0x02} }

// GateMark is the SO_MARK of the sockets by which the gate for TLS sends on.
const GateMark = 0x6d766d

// The space of conntrack marks: rules, the resolver, published ports.
const (
	maxID         = 0x3fffffff
	markDNS       = 0x40000000
	markPublished = 0x80000000
)

// Config is what a slot's rules are a function of.
type Config struct {
	Slot   netip.Addr   // The slot's own address, which the guest's packets get as their source.
	Hub    netip.Addr   // Where the resolver listens, on port 53.
	Subnet netip.Prefix // Of all slots.
	Host   []netip.Addr // The host's own addresses. Optional; what is no IPv4 is left out.
	MTU    int          // Of tap0 and up0, in bytes: TCP's MSS is clamped to it. 0 doesn't clamp.

	Rules     []Rule // In the policy's order.
	VerifySNI bool
	GatePort  uint16 // Where the gate listens. Needed with VerifySNI; flows that it has go on without.
	Limits    Limits
	Ingress   []Ingress
}

// Limits are caps of one machine. Zero values are the defaults.
type Limits struct {
	Connections  int // Flows at the same time, and as many again that came in from outside: 4096.
	NewPerSecond int // New flows a second: 500.
	NewBurst     int // And as many at once: 1000.
	DNSPerSecond int // Packets to the resolver a second: 100.
	DNSBurst     int // And as many at once: 200.
}

func (l Limits) withDefaults() Limits {
	for _, field := range []struct {
		value *int
		usual int
	}{{&l.Connections, 4096}, {&l.NewPerSecond, 500}, {&l.NewBurst, 1000}, {&l.DNSPerSecond, 100}, {&l.DNSBurst, 200}} {
		if *field.value == 0 {
			*field.value = field.usual
		}
	}
	return l
}

// Ingress is a port of the slot's address that leads to the guest.
type Ingress struct {
	Protocol  egress.Protocol // tcp or udp.
	Port      uint16          // At the slot's address.
	GuestPort uint16
	From      []netip.Prefix // Who may come; everybody when it is empty.
}

// check returns an error for what the kernel would not refuse, and for what it would without saying why.
func (c Config) check() error {
	if !c.Slot.Is4() || !c.Hub.Is4() || !c.Subnet.IsValid() || !c.Subnet.Contains(c.Slot) || !c.Subnet.Contains(c.Hub) {
		return fmt.Errorf("firewall: slot %s and hub %s must be addresses of the subnet %s", c.Slot, c.Hub, c.Subnet)
	}
	if c.VerifySNI && c.GatePort == 0 {
		return fmt.Errorf("firewall: VerifySNI needs GatePort")
	}
	l := c.Limits
	if min(l.Connections, l.NewPerSecond, l.NewBurst, l.DNSPerSecond, l.DNSBurst) < 0 || max(l.Connections, l.NewPerSecond, l.NewBurst, l.DNSPerSecond, l.DNSBurst) > 1<<30 {
		return fmt.Errorf("firewall: limits %+v must be 0 to %d", l, 1<<30)
	}
	if err := checkRules(c.Rules); err != nil {
		return err
	}
	return checkIngress(c.Ingress)
}

func checkRules(rules []Rule) error {
	seen := make(map[uint32]bool, len(rules))
	for i, rule := range rules {
		if rule.ID == 0 || rule.ID > maxID || seen[rule.ID] {
			return fmt.Errorf("firewall: rules[%d]: id %d must be 1 to %d and another rule's must differ (use AssignIDs)", i, rule.ID, maxID)
		}
		seen[rule.ID] = true
		if rule.retired() {
			continue
		}
		if err := rule.Rule.Validate(); err != nil {
			return fmt.Errorf("firewall: rules[%d]: %w", i, err)
		}
	}
	return nil
}

func checkIngress(entries []Ingress) error {
	type end struct {
		protocol egress.Protocol
		port     uint16
	}
	seen := make(map[end]bool, len(entries))
	for i, in := range entries {
		if in.Protocol != egress.TCP && in.Protocol != egress.UDP || in.Port == 0 || in.GuestPort == 0 {
			return fmt.Errorf("firewall: ingress[%d]: %+v must be tcp or udp and have both ports", i, in)
		}
		for _, from := range in.From {
			if !from.IsValid() || !from.Addr().Is4() || from != from.Masked() {
				return fmt.Errorf("firewall: ingress[%d]: From %s must be an IPv4 network without bits beyond its length", i, from)
			}
		}
		if at := (end{in.Protocol, in.Port}); seen[at] {
			return fmt.Errorf("firewall: ingress[%d]: %s port %d is there twice", i, in.Protocol, in.Port)
		} else {
			seen[at] = true
		}
	}
	return nil
}
