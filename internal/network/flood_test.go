//go:build linux

package network

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/tangle-network/microvm-runtime/egress"
	"github.com/tangle-network/microvm-runtime/internal/firewall"
	"github.com/tangle-network/microvm-runtime/internal/netns"
	"github.com/tangle-network/microvm-runtime/internal/testing/netlab"
)

// floodFlows is more than the connection tracking has room for, by the kernel's usual maximum.
const floodFlows = 300_000

// TestHostFlood: a guest that opens flows as fast as it can, with nothing but the cap on flows to stop it, takes no more of the host's connection tracking than the cap; its neighbour goes on opening
// flows while it does and afterwards.
func TestHostFlood(t *testing.T) {
	for _, flows := range []int{1000, 4096} { // the host has as many as the cap says, not fewer by something else
		t.Run(fmt.Sprint(flows), func(t *testing.T) {
			p := newPackets(t, 7, 8)
			p.cap(7, flows, "udp:0.0.0.0/0")
			p.allow(8, "udp:5.9.9.7:7", "tcp:5.9.9.7:7")
			flood := make(chan error, 1)
			go func() { flood <- floodOf(p.guests[7], floodFlows) }()
			during, lost, ended := 0, 0, false
			for !ended {
				select {
				case err := <-flood:
					if ended = true; err != nil {
						t.Fatal(err)
					}
				default:
					lost += p.neighbour()
					during++
				}
			}
			p.neighbour()
			if entries := p.entries(p.lab.Host, p.at(7, 0).Addr()); entries > flows || entries < flows*9/10 {
				t.Errorf("the host has %d entries of the guest, the cap is %d", entries, flows)
			}
			if got := p.dropped(7)[firewall.DropConnectionLimit]; got < floodFlows*8/10 {
				t.Errorf("%d of %d flows were dropped by the cap", got, floodFlows)
			}
			if during == 0 || lost > 10+during/10 {
				t.Errorf("the neighbour lost %d datagrams of %d during the flood", lost, during)
			}
		})
	}
}

// cap allows a slot's guest one rule and so many flows at once, however fast they begin.
func (p *packets) cap(number, flows int, rule string) {
	p.Helper()
	parsed, err := egress.ParseRule(rule)
	if err != nil {
		p.Fatal(err)
	}
	p.inRules(number, func(s *firewall.Slot, config firewall.Config) error {
		config.Rules = []firewall.Rule{{ID: 1, Rule: parsed}}
		config.Limits = firewall.Limits{Connections: flows, NewPerSecond: 1 << 30, NewBurst: 1 << 30}
		return s.Install(config)
	})
	err = p.net.WithFirewall(func(host *firewall.Host) error { return host.Admit(p.at(number, 0).Addr(), flows) })
	if err != nil {
		p.Fatal(err)
	}
}

// neighbour opens a flow of each protocol. It returns how many datagrams were lost before one passed: queues that all share may be full for a moment.
func (p *packets) neighbour() (lost int) {
	p.Helper()
	const most, late = 20, time.Second // what is late on a busy host is not lost
	g, to := p.guests[8], netip.AddrPortFrom(netlab.Echo, 7)
	err := g.Echo("udp", to, late)
	for ; err != nil && lost < most; lost++ {
		err = g.Echo("udp", to, late)
	}
	if err = errors.Join(err, g.Echo("tcp", to, soon)); err != nil {
		p.Errorf("the neighbour: %v", err)
	}
	return lost
}

// floodOf sends datagrams, each of a flow of its own, as fast as the TAP takes them.
func floodOf(g *netlab.Guest, flows int) error {
	const ports = 50_000
	for i := range flows {
		to := netip.AddrPortFrom(netlab.Other, uint16(10_000+i%ports))
		if err := g.Inject(netlab.Frame{Source: netip.AddrPortFrom(netlab.GuestAddress, uint16(20_000+i/ports)), To: to}.Bytes()); err != nil {
			return err
		}
	}
	return nil
}

// entries is how many entries of a namespace's connection tracking began at an address.
func (p *packets) entries(ns *netns.Namespace, source netip.Addr) (count int) {
	p.Helper()
	err := ns.Do(func() error {
		flows, err := netlink.ConntrackTableList(netlink.ConntrackTable, netlink.FAMILY_V4)
		for _, flow := range flows {
			if a, _ := netip.AddrFromSlice(flow.Forward.SrcIP); a.Unmap() == source {
				count++
			}
		}
		return err
	})
	if err != nil {
		p.Fatal(err)
	}
	return count
}
