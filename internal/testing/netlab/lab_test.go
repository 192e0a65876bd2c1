//go:build linux

package netlab

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/vishvananda/netlink"

	"github.com/tangle-network/microvm-runtime/internal/netns"
	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
	"github.com/tangle-network/microvm-runtime/internal/unix"
)

// behind makes a namespace with a TAP and a route to the lab's host, and nothing that filters or translates; and a guest on it.
func behind(t *testing.T, l *Lab) *Guest {
	t.Helper()
	path := filepath.Join(t.TempDir(), "slot")
	ns, err := netns.Make(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(netns.Remove(path), ns.Close()); err != nil {
			t.Error(err)
		}
	})
	inner, outer := netip.MustParsePrefix("10.7.7.2/24"), netip.MustParsePrefix("10.7.7.1/24")
	forward := func() error { return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0) }
	err = links(l.Host, func(h *netlink.Handle) error {
		attributes := netlink.NewLinkAttrs()
		attributes.Name = "slot"
		veth := netlink.NewVeth(attributes)
		veth.PeerName, veth.PeerNamespace = "up0", netlink.NsFd(ns.FD())
		err := errors.Join(h.LinkAdd(veth), raise(h, "slot", outer), forward())
		return errors.Join(err, h.RouteAdd(&netlink.Route{Dst: ipNet(netip.MustParsePrefix("172.16.0.0/30")), Gw: inner.Addr().AsSlice()}))
	})
	if err == nil {
		err = links(ns, func(h *netlink.Handle) error {
			if err := errors.Join(unix.MakeTAP("tap0", 1, 1), forward()); err != nil {
				return err
			}
			tap, err := h.LinkByName("tap0")
			if err != nil {
				return err
			}
			err = errors.Join(h.LinkSetHardwareAddr(tap, GatewayMAC), raise(h, "tap0", netip.PrefixFrom(Gateway, 30)), raise(h, "up0", inner))
			return errors.Join(err, h.RouteAdd(&netlink.Route{Dst: ipNet(netip.MustParsePrefix("0.0.0.0/0")), Gw: outer.Addr().AsSlice()}))
		})
	}
	if err := errors.Join(err, l.RouteBack(netip.MustParsePrefix("172.16.0.0/30"))); err != nil {
		t.Fatal(err)
	}
	return l.Guest(t, path)
}

// TestHostServers: a guest reaches each of them where nothing filters.
func TestHostServers(t *testing.T) {
	ring.Host(t)
	l := New(t)
	g := behind(t, l)
	for _, to := range []netip.Addr{Web, Other, Echo, Metadata, Private} {
		for _, network := range []string{"udp", "tcp"} {
			if err := g.Echo(network, netip.AddrPortFrom(to, EchoPorts[1]), patience); err != nil {
				t.Errorf("%s %s: %v", network, to, err)
			}
		}
		if err := g.Ping(to, patience); err != nil {
			t.Errorf("ping %s: %v", to, err)
		}
	}
	for url, from := range map[string]netip.Addr{"https://www.example.com/a": Web, "https://other.example/a": Other, "http://169.254.169.254/a": Metadata} {
		if text, err := g.Get(url, from, patience); err != nil || url[len(url)-len("/a"):] != "/a" || text == "" {
			t.Errorf("%s: %q, %v", url, text, err)
		}
	}
	if _, err := g.Get("https://elsewhere.example/", Web, patience); err == nil {
		t.Error("the certificate is of any name")
	}
	if came := l.Came(func(a Arrival) bool { return a.Service == "https" && a.Text == "www.example.com" && a.To.Addr() == Web }); len(came) != 1 {
		t.Errorf("names that SNI asked for: %+v", l.Came(nil))
	}
	for _, network := range []string{"udp", "tcp"} {
		reply, err := g.Look(network, netip.AddrPortFrom(DNS, 53), "alias.Example", dns.TypeA, patience)
		if err != nil || len(reply.Answer) != 2 || reply.Answer[1].(*dns.A).A.String() != Web.String() {
			t.Errorf("%s: %v, %v", network, reply, err)
		}
	}
	if err := l.SetRecords("alias.example"); err != nil {
		t.Error(err)
	}
	if reply, err := g.Look("udp", netip.AddrPortFrom(DNS, 53), "alias.example", dns.TypeA, patience); err != nil || reply.Rcode != dns.RcodeNameError {
		t.Errorf("%v, %v", reply, err)
	}
	if conn, err := l.Dial("tcp", netip.AddrPortFrom(HostWAN, 80).String(), time.Second); err == nil {
		conn.Close()
		t.Error("the host serves something")
	}
}

// TestHostFrames: those that are honest arrive as what they say, and the kernel takes the others as they are meant.
func TestHostFrames(t *testing.T) {
	ring.Host(t)
	l := New(t)
	g := behind(t, l)
	to := netip.AddrPortFrom(Echo, 7)
	inject := func(frames ...[]byte) {
		t.Helper()
		for _, frame := range frames {
			if err := g.Inject(frame); err != nil {
				t.Fatal(err)
			}
		}
	}
	inject(Frame{To: to, Text: "honest"}.Bytes(), Frame{To: to, Source: netip.MustParseAddrPort("172.16.0.2:9"), Options: []byte{1, 1, 1, 1}, Text: "options"}.Bytes())
	for _, text := range []string{"honest", "options"} {
		if a, err := l.Await(Text(text)); err != nil || a.From.Addr() != GuestAddress || a.To != to {
			t.Errorf("%s: %+v, %v", text, a, err)
		}
	}
	whole := Frame{To: to, Text: "0123456789abcdef"}
	inject(whole.Fragments()...)
	if _, err := l.Await(Text(whole.Text)); err != nil {
		t.Errorf("fragments: %v", err)
	}
	inject(Frame{To: to, Text: "bad", DontCountHeader: true}.Bytes(), Frame{To: to, Text: "tagged", VLAN: 5}.Bytes(), Frame{To: to, Text: "last"}.Bytes())
	if _, err := l.Await(Text("last")); err != nil {
		t.Error(err)
	}
	if came := l.Came(func(a Arrival) bool { return a.Text == "bad" || a.Text == "tagged" }); len(came) > 0 {
		t.Errorf("%+v", came)
	}
	inject(ARP{}.Bytes())
	answered := func() bool {
		return slices.ContainsFunc(g.Frames(), func(f []byte) bool { return len(f) >= 42 && f[12] == 8 && f[13] == 6 && f[21] == 2 })
	}
	for deadline := time.Now().Add(patience); !answered(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("ARP is not answered")
		}
	}
}
