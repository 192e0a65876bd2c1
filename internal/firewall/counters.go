//go:build linux

package firewall

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
)

// Counter is how much there was of something.
type Counter struct {
	Packets, Bytes uint64
}

// Counters are what a slot has seen since it was made or reset. What is counted for a rule is of both directions, and stays while the rule stays; flows that the gate
// has are counted on the guest's side.
type Counters struct {
	Rules   map[uint32]Counter // By the rule's number.
	Dropped map[string]Counter // By reason, such as DropDenied.
	DNS     Counter            // To the resolver and from there.
	Ingress Counter            // Of flows that came in by published ports.
}

// Counters reads them all.
func (s *Slot) Counters() (Counters, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	answers, err := s.conn.request(messageGetObject, netlink.Dump, nftables.TableFamilyUnspecified, nil)
	if err != nil {
		return Counters{}, fmt.Errorf("read counters: %w", err)
	}
	out := Counters{Rules: map[uint32]Counter{}, Dropped: map[string]Counter{}}
	for _, answer := range answers {
		if len(answer.Data) < 4 {
			continue
		}
		const data = 4
		fields := values(answer.Data[4:])
		if text(fields[attrTable]) == tableName {
			out.note(text(fields[attrObjectName]), counterIn(fields[data]))
		}
	}
	return out, nil
}

func (c *Counters) note(name string, counted Counter) {
	switch {
	case name == dnsCounter:
		c.DNS = counted
	case name == ingressCounter:
		c.Ingress = counted
	case strings.HasPrefix(name, "rule-"):
		if id, err := strconv.ParseUint(strings.TrimPrefix(name, "rule-"), 10, 32); err == nil {
			c.Rules[uint32(id)] = counted
		}
	default:
		c.Dropped[name] = counted
	}
}

// counterIn decodes a counter's data.
func counterIn(text []byte) Counter {
	fields := values(text)
	return Counter{Bytes: number64(fields[1]), Packets: number64(fields[2])}
}
