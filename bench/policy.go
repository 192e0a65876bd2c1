//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/tangle-network/microvm-runtime/egress"
	"github.com/tangle-network/microvm-runtime/internal/firewall"
	"github.com/tangle-network/microvm-runtime/internal/netns"
	"github.com/tangle-network/microvm-runtime/internal/setup"
	"github.com/tangle-network/microvm-runtime/internal/unix"
)

// policyStations are the numbers of slots at which the curve of updates has points; the first is what the last is held against.
var policyStations = []int{10, 100, 300, 1000}

const (
	policyUpdates = 1000
	policySlots   = 10 // of them all, those whose policies are replaced, one after the other
	policyLimit   = 1.3
)

// slotRules is a slot that has a policy.
type slotRules struct {
	ns     *netns.Namespace
	rules  *firewall.Slot
	config firewall.Config

	updates int
}

// policyUpdate replaces the ten rules of one slot's policy by ten others, beside ten slots with policies and beside a thousand.
func policyUpdate(ctx context.Context, _ setup.Parts) (_ []figure, err error) {
	var slots []*slotRules
	defer func() { err = errors.Join(err, closeSlots(slots)) }()
	policies, err := tenRules()
	if err != nil {
		return nil, err
	}
	c := &curve{}
	var first, last []time.Duration
	for _, station := range policyStations {
		for len(slots) < station {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			s, err := newSlotRules(len(slots))
			if err != nil {
				return nil, err
			}
			slots = append(slots, s)
			if err := s.update(policies[0]); err != nil {
				return nil, err
			}
		}
		last = nil
		for n := range policyUpdates {
			s := slots[n%policySlots*station/policySlots]
			took, err := timed(func() error { return s.update(policies[(s.updates+1)%len(policies)]) })
			if err != nil {
				return nil, err
			}
			last = append(last, took)
		}
		if first == nil {
			first = last
		}
		c.add(station, last)
	}
	f := newFigure("policy_update", last, "the same beside ten slots", first)
	f.Limit, f.curve = policyLimit, c
	return []figure{f}, nil
}

// tenRules are policies of ten rules each, which have none in common.
func tenRules() (policies []egress.Policy, err error) {
	for n := range 3 {
		var p egress.Policy
		for _, form := range []string{
			"pypi%d.org:443", "*.pythonhosted%d.org:443", "github%d.com:443", "deb%d.debian.org", "10.%d.0.0/16",
			"udp:192.0.2.%d:123", "icmp:198.51.%d.0/24", "203.0.113.%d:80", "172.16.%d.0/24:8000-8999", "udp:10.200.%d.1:53",
		} {
			rule, err := egress.ParseRule(fmt.Sprintf(form, n+1))
			if err != nil {
				return nil, err
			}
			p.Rules = append(p.Rules, rule)
		}
		policies = append(policies, p)
	}
	return policies, nil
}

func newSlotRules(number int) (*slotRules, error) {
	ns, err := netns.New()
	if err != nil {
		return nil, err
	}
	if err := ns.Do(func() error { return unix.MakeTAP("tap0", 0, 0) }); err != nil {
		return nil, errors.Join(err, ns.Close())
	}
	rules, err := firewall.OpenSlot(ns)
	if err != nil {
		return nil, errors.Join(err, ns.Close())
	}
	subnet := netip.MustParsePrefix("100.64.0.0/18")
	return &slotRules{ns: ns, rules: rules, config: firewall.Config{
		Slot: netip.AddrFrom4([4]byte{100, 64, byte((number + 4) >> 8), byte(number + 4)}), Hub: netip.MustParseAddr("100.64.0.2"), Subnet: subnet, MTU: 1500,
	}}, nil
}

func (s *slotRules) update(policy egress.Policy) error {
	s.updates++
	s.config.Rules = firewall.AssignIDs(s.config.Rules, policy)
	return s.rules.Install(s.config)
}

// closeSlots ends the slots; the kernel takes its time after that.
func closeSlots(slots []*slotRules) (err error) {
	for _, s := range slots {
		err = errors.Join(err, s.rules.Close(), s.ns.Close())
	}
	return err
}
