//go:build linux

package netlab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/tangle-network/microvm-runtime/internal/netns"
)

// Links and addresses of the stand-in for the host.
const (
	Uplink = "wan0"
	LAN    = "lan0"
	MTU    = 1500
)

// Addresses of a lab.
var (
	HostWAN = netip.MustParseAddr("81.2.69.142") // The host's own, at its uplink.
	HostLAN = netip.MustParseAddr("10.9.9.1")    // And in the private net.
	gateway = netip.MustParseAddr("81.2.69.129")

	DNS      = netip.MustParseAddr("9.9.9.9")         // Port 53: a resolver; 853 takes connections.
	Web      = netip.MustParseAddr("93.184.215.14")   // 80, 443: example.com and its subdomains.
	Other    = netip.MustParseAddr("151.101.1.69")    // 80, 443: other.example.
	Echo     = netip.MustParseAddr("5.9.9.7")         // 7: whatever is sent, udp and tcp; each other port of EchoPorts too.
	Metadata = netip.MustParseAddr("169.254.169.254") // 80: as of a cloud.
	Private  = netip.MustParseAddr("10.9.9.9")        // 80, 7: in the private net.
)

// EchoPorts are where all servers but DNS echo, udp and tcp.
var EchoPorts = []uint16{7, 7001, 7002, 7003}

// Arrival is what a server got.
type Arrival struct {
	Service string         // "udp", "tcp", "http", "https", "dns".
	From    netip.AddrPort // As the server sees it.
	To      netip.AddrPort
	Text    string // What a datagram held, what a connection began with, the path, the name that SNI or a query asks for.
}

// Lab is a stand-in for the host, and an internet.
type Lab struct {
	Host *netns.Namespace

	t        testing.TB
	internet *netns.Namespace
	certs    certificates
	zone     zone

	servers sync.WaitGroup
	closers []interface{ Close() error }

	mu       sync.Mutex
	arrivals []Arrival
	changed  chan struct{} // closed when something arrives
}

// New makes a lab, which the test's end removes.
func New(t testing.TB) *Lab {
	t.Helper()
	l := &Lab{t: t, changed: make(chan struct{})}
	for _, ns := range []**netns.Namespace{&l.Host, &l.internet} {
		var err error
		if *ns, err = netns.New(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { (*ns).Close() })
	}
	t.Cleanup(l.close)
	if err := errors.Join(l.wire(), l.makeCertificates()); err != nil {
		t.Fatal(err)
	}
	l.zone.reset()
	if err := l.serve(); err != nil {
		t.Fatal(err)
	}
	return l
}

// close ends all servers.
func (l *Lab) close() {
	l.mu.Lock()
	closers := l.closers
	l.closers = nil
	l.mu.Unlock()
	for _, c := range closers {
		c.Close()
	}
	l.servers.Wait()
}

// closeLater closes c at the lab's end, at the latest.
func (l *Lab) closeLater(c interface{ Close() error }) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closers = append(l.closers, c)
}

// wire makes the links.
func (l *Lab) wire() error {
	err := links(l.Host, func(h *netlink.Handle) error {
		for name, address := range map[string]netip.Prefix{Uplink: netip.PrefixFrom(HostWAN, 25), LAN: netip.PrefixFrom(HostLAN, 24)} {
			attributes := netlink.NewLinkAttrs()
			attributes.Name, attributes.MTU = name, MTU
			veth := netlink.NewVeth(attributes)
			veth.PeerName, veth.PeerMTU, veth.PeerNamespace = "x"+name, MTU, netlink.NsFd(l.internet.FD())
			if err := errors.Join(h.LinkAdd(veth), raise(h, "lo"), raise(h, name, address)); err != nil {
				return err
			}
		}
		return h.RouteAdd(&netlink.Route{Dst: ipNet(netip.MustParsePrefix("0.0.0.0/0")), Gw: gateway.AsSlice()})
	})
	if err != nil {
		return err
	}
	return links(l.internet, func(h *netlink.Handle) error {
		wan := []netip.Prefix{netip.PrefixFrom(gateway, 25)}
		for _, server := range []netip.Addr{DNS, Web, Other, Echo, Metadata} {
			wan = append(wan, netip.PrefixFrom(server, 32))
		}
		return errors.Join(raise(h, "lo"), raise(h, "x"+Uplink, wan...), raise(h, "x"+LAN, netip.PrefixFrom(Private, 24)))
	})
}

// RouteBack lets the servers answer a subnet directly, as if the host did not have to translate its addresses.
func (l *Lab) RouteBack(subnet netip.Prefix) error {
	return links(l.internet, func(h *netlink.Handle) error {
		return h.RouteReplace(&netlink.Route{Dst: ipNet(subnet), Gw: HostWAN.AsSlice()})
	})
}

// Outside runs f on a thread of the servers' namespace, as Dial does from there.
func (l *Lab) Outside(f func() error) error { return l.internet.Do(f) }

// Dial connects from the internet, as who reaches a published port does.
func (l *Lab) Dial(network, address string, patience time.Duration) (net.Conn, error) {
	return dial(l.internet, network, address, patience)
}

// dial connects from a namespace. The address must be one, not a name.
func dial(ns *netns.Namespace, network, address string, patience time.Duration) (conn net.Conn, err error) {
	if _, err := netip.ParseAddrPort(address); err != nil {
		return nil, err
	}
	err = ns.Do(func() (err error) {
		conn, err = net.DialTimeout(network, address, patience)
		return err
	})
	return conn, err
}

// note remembers what arrived.
func (l *Lab) note(a Arrival) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.arrivals = append(l.arrivals, a)
	close(l.changed)
	l.changed = make(chan struct{})
}

// Came returns all that has arrived and that the function wants; all when it is nil.
func (l *Lab) Came(want func(Arrival) bool) []Arrival {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.came(want)
}

func (l *Lab) came(want func(Arrival) bool) (came []Arrival) {
	for _, a := range l.arrivals {
		if want == nil || want(a) {
			came = append(came, a)
		}
	}
	return came
}

// patience is how long tests wait for what must come.
const patience = 10 * time.Second

// Await waits for something that the function wants and returns the first such, or fails.
func (l *Lab) Await(want func(Arrival) bool) (Arrival, error) {
	deadline := time.After(patience)
	for {
		l.mu.Lock()
		came, changed := l.came(want), l.changed
		l.mu.Unlock()
		if len(came) > 0 {
			return came[0], nil
		}
		select {
		case <-changed:
		case <-deadline:
			return Arrival{}, fmt.Errorf("it did not arrive within %v: %w", patience, os.ErrDeadlineExceeded)
		}
	}
}

// Text chooses what holds a text.
func Text(text string) func(Arrival) bool { return func(a Arrival) bool { return a.Text == text } }

// links runs f with a socket of the namespace.
func links(ns *netns.Namespace, f func(*netlink.Handle) error) error {
	return ns.Do(func() error {
		h, err := netlink.NewHandle(syscall.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer h.Close()
		return f(h)
	})
}

func raise(h *netlink.Handle, name string, addresses ...netip.Prefix) error {
	link, err := h.LinkByName(name)
	if err != nil {
		return err
	}
	for _, address := range addresses {
		if err := h.AddrReplace(link, &netlink.Addr{IPNet: ipNet(address)}); err != nil {
			return err
		}
	}
	return h.LinkSetUp(link)
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
