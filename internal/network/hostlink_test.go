//go:build linux

package network

import (
	"errors"
	"io/fs"
	"net/netip"
	"testing"

	"github.com/tangle-network/microvm-runtime/internal/firewall"
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

// TestHostRestore makes the host's table again, but not that of a network that was removed.
func TestHostRestore(t *testing.T) {
	r := newRig(t)
	n := r.open()
	present := func() (there bool) {
		err := n.WithFirewall(func(h *firewall.Host) (err error) {
			there, err = h.Present()
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return there
	}
	if err := n.WithFirewall((*firewall.Host).Remove); err != nil || present() {
		t.Fatal("the table is there", err)
	}
	if err := n.Restore(); err != nil || !present() {
		t.Errorf("restored: %t, %v", present(), err)
	}
	if err := Remove(t.Context(), r.options); err != nil {
		t.Fatal(err)
	}
	if err := n.Restore(); !errors.Is(err, fs.ErrNotExist) || present() {
		t.Errorf("of one that was removed there is a table: %t, %v", present(), err)
	}
}
