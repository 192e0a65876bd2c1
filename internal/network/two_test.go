//go:build linux

package network

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/egress"
	"github.com/tangle-network/microvm-runtime/internal/firewall"
	"github.com/tangle-network/microvm-runtime/internal/testing/netlab"
	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
)

// colliding returns the IDs of two networks that would choose the same subnet if they were alone.
func colliding(t *testing.T) (first, second string) {
	t.Helper()
	by := map[netip.Prefix]string{}
	for n := 0; ; n++ {
		id := fmt.Sprintf("%08x", n)
		subnet, err := choose(id, nil)
		if err != nil {
			t.Fatal(err)
		}
		if other, ok := by[subnet]; ok {
			return other, id
		}
		by[subnet] = id
	}
}

// openTwo opens the networks of two state directories on one host at the same time.
func openTwo(t *testing.T) (one, two *packets) {
	t.Helper()
	ring.Host(t)
	lab := netlab.New(t)
	first, second := colliding(t)
	var opened sync.WaitGroup
	both := []*packets{}
	for _, id := range []string{first, second} {
		p := &packets{T: t, lab: lab, guests: map[int]*netlab.Guest{}}
		options := Options{Dir: filepath.Join(t.TempDir(), "network"), ID: id, Host: lab.Host}
		t.Cleanup(func() {
			if err := Remove(context.Background(), options); err != nil {
				t.Error(err)
			}
		})
		opened.Go(func() {
			var err error
			if p.net, err = Open(t.Context(), options); err != nil {
				t.Error(err)
			}
		})
		both = append(both, p)
	}
	if opened.Wait(); t.Failed() {
		t.FailNow()
	}
	return both[0], both[1]
}

// TestHostTwoNetworks: networks of two state directories have their own addresses and names. What one does to its slots and its table, also its end, leaves the other's packets flowing.
func TestHostTwoNetworks(t *testing.T) {
	one, two := openTwo(t)
	if a, b := one.net.plan.subnet, two.net.plan.subnet; a.Overlaps(b) {
		t.Fatalf("subnets %s and %s", a, b)
	}
	if a, b := one.net.options.linkName(), two.net.options.linkName(); a == b {
		t.Fatalf("both links are %s", a)
	}
	web := netip.AddrPortFrom(netlab.Echo, 7)
	for _, p := range []*packets{one, two} { // the same number in both
		p.guest(7)
		p.allow(7, "tcp:5.9.9.7:7", "udp:5.9.9.7:7", one.net.plan.subnet.String(), two.net.plan.subnet.String())
		p.echoes(7)
	}
	if err := two.guests[7].Serve(9); err != nil {
		t.Fatal(err)
	}
	two.let(7, 9, 9) // and nothing else until the next allow
	if err := one.guests[7].Echo("udp", two.at(7, 9), not); err == nil {
		t.Error("a guest reaches one of another state directory without a port that the host publishes")
	}
	published := netip.AddrPortFrom(netlab.HostWAN, 9)
	err := two.net.WithFirewall(func(host *firewall.Host) error {
		return host.Publish(firewall.Publication{Address: published.Addr(), Protocol: egress.UDP, Port: published.Port(), To: two.at(7, 9)})
	})
	if err != nil {
		t.Fatal(err)
	}
	one.allow(7, "udp:"+published.Addr().String()+"/32:9")
	if err := one.guests[7].Echo("udp", published, soon); err != nil {
		t.Errorf("the published port of another state directory's guest: %v", err)
	}
	two.allow(7, "tcp:5.9.9.7:7", "udp:5.9.9.7:7")
	conn, err := two.guests[7].Dial("tcp", web.String(), soon)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	before := two.entries(two.lab.Host, two.at(7, 0).Addr())
	alive := func(after string) {
		t.Helper()
		if err := netlab.Speak(conn, "after "+after, soon); err != nil {
			t.Errorf("the other's flow after %s: %v", after, err)
		}
		if now := two.entries(two.lab.Host, two.at(7, 0).Addr()); now < before {
			t.Errorf("after %s the host knows %d flows of the other's, and knew %d", after, now, before)
		}
		two.echoes(7)
		err := two.net.WithFirewall(func(host *firewall.Host) error {
			there, err := host.Present()
			if !there {
				t.Errorf("after %s the other's table is not what it should be", after)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	alive("nothing")
	one.guests[7].Close()
	if err := one.net.Recycle(t.Context(), 7); err != nil {
		t.Fatal(err)
	}
	alive("the recycling of a slot of the same number")
	if err := (installed{}).remove(one.net.options); err != nil {
		t.Fatal(err)
	}
	alive("the loss of the one's table")
	if err := Remove(t.Context(), one.net.options); err != nil {
		t.Fatal(err)
	}
	alive("the one's end")
	if one.net, err = Open(t.Context(), one.net.options); err != nil {
		t.Fatal(err)
	}
	one.guest(7)
	one.allow(7, "tcp:5.9.9.7:7", "udp:5.9.9.7:7")
	one.echoes(7)
	alive("the one is made again")
}

// echoes says that a guest's flows pass.
func (p *packets) echoes(number int) {
	p.Helper()
	for _, network := range []string{"tcp", "udp"} {
		if err := p.guests[number].Echo(network, netip.AddrPortFrom(netlab.Echo, 7), soon); err != nil {
			p.Errorf("%s of slot %d of %s: %v", network, number, p.net.options.ID, err)
		}
	}
}

// TestHostTwoNetworksOfOneSubnet: the second that asks for a subnet is told, and harms nobody; it gets another.
func TestHostTwoNetworksOfOneSubnet(t *testing.T) {
	one := newPackets(t, 7)
	one.allow(7, "tcp:5.9.9.7:7", "udp:5.9.9.7:7")
	options := Options{Dir: filepath.Join(t.TempDir(), "network"), ID: "4567cdef", Host: one.lab.Host, Subnet: one.net.plan.subnet}
	if n, err := Open(t.Context(), options); !errors.Is(err, microvm.ErrInvalid) {
		t.Errorf("%v, %v", n, err)
	}
	one.echoes(7)
	if err := Remove(t.Context(), options); err != nil {
		t.Fatal(err)
	}
	one.echoes(7)
	options.Subnet = netip.MustParsePrefix("10.77.1.0/24")
	if _, err := Open(t.Context(), options); err != nil {
		t.Error(err)
	}
	if err := Remove(t.Context(), options); err != nil {
		t.Fatal(err)
	}
	one.echoes(7)
}
