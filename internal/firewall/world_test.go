//go:build linux

package firewall

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/net/ipv4"

	"github.com/tangle-network/microvm-runtime/egress"
	"github.com/tangle-network/microvm-runtime/internal/netns"
	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
)

// patient is how long anything may take that is expected to happen.
const patient = 10 * time.Second

// Addresses of the world that slots lead to. All are in one namespace, which is hub, host and internet.
const (
	resolver   = "100.64.0.2"
	neighbour  = "100.64.0.9" // another slot's
	public1    = "198.41.0.4"
	public2    = "9.9.9.9"
	private    = "10.1.2.3"
	metadata   = "169.254.169.254"
	hostPublic = "5.5.5.5" // the host's own
	hostInside = "10.9.9.9"
	beside     = "100.1.1.1" // public, and near the subnet
)

var served = []int{53, 80, 443, 853, 5000, 5001}

// world is everything that is not a machine.
type world struct {
	*testing.T
	net *netns.Namespace
}

// newWorld makes a namespace in which every address echoes on every port, UDP and TCP.
func newWorld(t *testing.T) *world {
	t.Helper()
	ring.Host(t)
	w := &world{T: t, net: newNamespace(t)}
	w.in(w.net, func(h *netlink.Handle) error {
		lo, err := h.LinkByName("lo")
		if err != nil {
			return err
		}
		err = h.LinkSetUp(lo)
		for _, a := range []string{resolver, neighbour, public1, public2, private, metadata, hostPublic, hostInside, beside} {
			err = errors.Join(err, h.AddrAdd(lo, &netlink.Addr{IPNet: single(a)}))
		}
		return err
	})
	for _, port := range served {
		w.echo(port)
	}
	return w
}

func newNamespace(t *testing.T) *netns.Namespace {
	t.Helper()
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	err = ns.Do(func() error {
		var err error
		for _, key := range []string{"ipv6/conf/all/disable_ipv6", "ipv6/conf/default/disable_ipv6", "ipv4/ip_forward"} {
			err = errors.Join(err, os.WriteFile("/proc/sys/net/"+key, []byte("1"), 0))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return ns
}

func single(a string) *net.IPNet {
	return &net.IPNet{IP: net.ParseIP(a).To4(), Mask: net.CIDRMask(32, 32)}
}

func (w *world) in(ns *netns.Namespace, f func(*netlink.Handle) error) {
	w.Helper()
	err := ns.Do(func() error {
		h, err := netlink.NewHandle()
		if err != nil {
			return err
		}
		defer h.Close()
		return f(h)
	})
	if err != nil {
		w.Fatal(err)
	}
}

// echo serves a port at all addresses of the world.
func (w *world) echo(port int) {
	w.Helper()
	var udp net.PacketConn
	var tcp net.Listener
	err := w.net.Do(func() (err error) {
		if udp, err = net.ListenPacket("udp4", fmt.Sprintf(":%d", port)); err != nil {
			return err
		}
		tcp, err = net.Listen("tcp4", fmt.Sprintf(":%d", port))
		return err
	})
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { udp.Close(); tcp.Close() })
	go echoPackets(udp)
	go func() {
		for {
			conn, err := tcp.Accept()
			if err != nil {
				return
			}
			w.Cleanup(func() { conn.Close() })
			go io.Copy(struct{ io.Writer }{conn}, struct{ io.Reader }{conn}) // and no splice, whose pipes are kept
		}
	}()
}

// echoPackets answers from the address that was asked.
func echoPackets(udp net.PacketConn) {
	conn := ipv4.NewPacketConn(udp)
	conn.SetControlMessage(ipv4.FlagDst, true)
	buffer := make([]byte, 2048)
	for {
		n, control, from, err := conn.ReadFrom(buffer)
		if err != nil {
			return
		}
		conn.WriteTo(buffer[:n], &ipv4.ControlMessage{Src: control.Dst}, from)
	}
}

// machine is a slot with a guest: a namespace with the guest's address and MAC at the other end of tap0.
type machine struct {
	*world
	guest, slot *netns.Namespace
	rules       *Slot
	config      Config
	assigned    []Rule
}

// machine makes the slot with a number. Nothing is allowed.
func (w *world) machine(number int) *machine {
	w.Helper()
	address := netip.AddrFrom4([4]byte{100, 64, 0, byte(4 + number)})
	m := &machine{world: w, guest: newNamespace(w.T), slot: newNamespace(w.T), config: Config{
		Slot: address, Hub: netip.MustParseAddr(resolver), Subnet: netip.MustParsePrefix("100.64.0.0/18"),
		Host: []netip.Addr{netip.MustParseAddr(hostPublic), netip.MustParseAddr(hostInside)}, MTU: 1500,
	}}
	w.join(m.slot, tap, m.guest, "eth0", "06:00:ac:10:00:02")
	w.join(m.slot, uplink, w.net, fmt.Sprint("s", number), "06:00:00:00:00:09")
	w.configure(m.guest, "eth0", guestAddr().String()+"/30", gatewayAddr().String(), "")
	w.configure(m.slot, tap, gatewayAddr().String()+"/30", "", "")
	w.configure(m.slot, uplink, address.String()+"/32", resolver, "")
	w.configure(w.net, fmt.Sprint("s", number), "", "", address.String())
	w.settle(m.guest, "eth0")
	w.settle(m.slot, tap)
	w.settle(m.slot, uplink)
	w.settle(w.net, fmt.Sprint("s", number))
	rules, err := OpenSlot(m.slot)
	if err != nil {
		w.Fatal(err)
	}
	m.rules = rules
	w.Cleanup(func() { rules.Close() })
	m.allow()
	return m
}

// join connects two namespaces; the far end gets the MAC.
func (w *world) join(a *netns.Namespace, name string, b *netns.Namespace, far, mac string) {
	w.Helper()
	w.in(a, func(h *netlink.Handle) error {
		attributes := netlink.NewLinkAttrs()
		attributes.Name = name
		l := netlink.NewVeth(attributes)
		l.PeerName, l.PeerNamespace = far, netlink.NsFd(b.FD())
		l.PeerHardwareAddr, _ = net.ParseMAC(mac)
		return h.LinkAdd(l)
	})
}

func (w *world) configure(ns *netns.Namespace, name, address, gateway, route string) {
	w.Helper()
	w.in(ns, func(h *netlink.Handle) error {
		link, err := h.LinkByName(name)
		if err != nil {
			return err
		}
		if address != "" {
			a, _ := netlink.ParseAddr(address)
			err = h.AddrAdd(link, a)
		}
		err = errors.Join(err, h.LinkSetUp(link))
		index := link.Attrs().Index
		if gateway != "" {
			everywhere := &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}
			err = errors.Join(err, h.RouteAdd(&netlink.Route{LinkIndex: index, Dst: everywhere, Gw: net.ParseIP(gateway), Flags: int(netlink.FLAG_ONLINK)}))
		}
		if route != "" {
			err = errors.Join(err, h.RouteAdd(&netlink.Route{LinkIndex: index, Dst: single(route), Scope: netlink.SCOPE_LINK}))
		}
		return err
	})
}

// settle waits until a link sends: the kernel takes up to a second to find out that it may.
func (w *world) settle(ns *netns.Namespace, name string) {
	w.Helper()
	w.in(ns, func(h *netlink.Handle) error {
		for deadline := time.Now().Add(patient); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
			if link, err := h.LinkByName(name); err != nil || link.Attrs().OperState == netlink.OperUp {
				return err
			}
		}
		return fmt.Errorf("link %s doesn't get up", name)
	})
}

// allow makes these the machine's policy.
func (m *machine) allow(texts ...string) {
	m.Helper()
	m.assigned = AssignIDs(m.assigned, policy(m.T, texts...))
	m.config.Rules = m.assigned
	m.install()
}

func (m *machine) install() {
	m.Helper()
	if err := m.rules.Install(m.config); err != nil {
		m.Fatal(err)
	}
}

func policy(t *testing.T, texts ...string) (p egress.Policy) {
	t.Helper()
	for _, text := range texts {
		rule, err := egress.ParseRule(text)
		if err != nil {
			t.Fatal(err)
		}
		p.Rules = append(p.Rules, rule)
	}
	return p
}

// id returns the number of a rule.
func (m *machine) id(text string) uint32 {
	m.Helper()
	for _, rule := range m.assigned {
		if !rule.retired() && rule.String() == text {
			return rule.ID
		}
	}
	m.Fatalf("no rule %s", text)
	return 0
}

func (m *machine) grant(text, address string, ttl time.Duration) {
	m.Helper()
	if err := m.rules.Grant(m.id(text), netip.MustParseAddr(address), ttl); err != nil {
		m.Fatal(err)
	}
}
