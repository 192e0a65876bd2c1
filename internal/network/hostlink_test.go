//go:build linux

package network

import (
	"net/netip"
	"testing"
)

// TestHostLinkIsTheHosts: a rule for all machines opens neither the host's end of the link nor the hub, also when the host's table is gone.
func TestHostLinkIsTheHosts(t *testing.T) {
	p := newPackets(t, 7, 8)
	g, own := p.guests[7], netip.AddrPortFrom(p.net.plan.host(), 7)
	if err := p.lab.EchoIn(p.lab.Host, own); err != nil {
		t.Fatal(err)
	}
	if err := p.guests[8].Serve(7); err != nil {
		t.Fatal(err)
	}
	p.let(8, 7, 7)
	if err := (installed{}).remove(p.net.options); err != nil {
		t.Fatal(err)
	}
	p.allow(7, "10.77.0.0/24")
	for _, network := range []string{"udp", "tcp"} {
		if err := g.Echo(network, p.at(8, 7), soon); err != nil {
			t.Errorf("a neighbour by %s: %v", network, err)
		}
		if err := g.Echo(network, own, not); err == nil {
			t.Errorf("the host is open by %s", network)
		}
	}
	p.allow(7, own.Addr().String())
	if err := g.Echo("udp", own, soon); err != nil {
		t.Errorf("the host by a rule that names it: %v", err)
	}
}
