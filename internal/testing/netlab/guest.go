//go:build linux

package netlab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/vishvananda/netlink"

	"github.com/tangle-network/microvm-runtime/internal/netns"
	"github.com/tangle-network/microvm-runtime/internal/unix"
)

// What a guest has.
var (
	GuestAddress = netip.MustParseAddr("172.16.0.2")
	Gateway      = netip.MustParseAddr("172.16.0.1")
	GuestMAC     = net.HardwareAddr{0x06, 0x00, 0xac, 0x10, 0x00, 0x02}
	GatewayMAC   = net.HardwareAddr{0x06, 0x00, 0xac, 0x10, 0x00, 0x01}
)

// Guest is a Linux behind a slot's TAP: a namespace with a link of its own, whose frames go to the TAP as a VMM's do.
type Guest struct {
	ns       *netns.Namespace
	lab      *Lab
	tap, own *os.File

	mu     sync.Mutex
	number int
	frames [][]byte // what came from the slot
}

// Guest attaches one to the TAP of the namespace at a path. It goes at the test's end, or by Close.
func (l *Lab) Guest(t testing.TB, path string) *Guest {
	t.Helper()
	slot, err := netns.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer slot.Close()
	g := &Guest{lab: l}
	if g.ns, err = netns.New(); err != nil {
		t.Fatal(err)
	}
	open := func(ns *netns.Namespace, name string) (f *os.File) {
		err := ns.Do(func() (err error) {
			f, err = unix.OpenTAP(name)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	g.tap, g.own = open(slot, "tap0"), open(g.ns, "eth0")
	if err := g.configure(); err != nil {
		t.Fatal(err)
	}
	var relays sync.WaitGroup
	relays.Go(func() { relay(g.tap, g.own, nil) })
	relays.Go(func() { relay(g.own, g.tap, g.seen) })
	t.Cleanup(func() {
		g.Close()
		relays.Wait()
		g.ns.Close()
	})
	return g
}

// Close takes the guest off its TAP, as the end of a VMM does.
func (g *Guest) Close() error { return errors.Join(ended(g.tap.Close()), ended(g.own.Close())) }

func ended(err error) error {
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}

func (g *Guest) configure() error {
	return links(g.ns, func(h *netlink.Handle) error {
		link, err := h.LinkByName("eth0")
		if err != nil {
			return err
		}
		err = errors.Join(h.LinkSetHardwareAddr(link, GuestMAC), raise(h, "lo"), raise(h, "eth0", netip.PrefixFrom(GuestAddress, 30)))
		return errors.Join(err, h.RouteAdd(&netlink.Route{Dst: ipNet(netip.MustParsePrefix("0.0.0.0/0")), Gw: Gateway.AsSlice()}))
	})
}

// relay copies frames, with the headers before them, until one side is closed.
func relay(to, from *os.File, see func([]byte)) {
	data := make([]byte, 1<<17)
	for {
		n, err := from.Read(data)
		if err != nil {
			return
		}
		if see != nil {
			see(data[unix.TAPHeader:n])
		}
		if _, err := to.Write(data[:n]); errors.Is(err, os.ErrClosed) {
			return
		}
	}
}

// seen remembers a frame that came from the slot; of too many the last.
func (g *Guest) seen(frame []byte) {
	const most = 1000
	g.mu.Lock()
	defer g.mu.Unlock()
	g.frames = append(g.frames, append([]byte(nil), frame...))
	g.frames = g.frames[max(0, len(g.frames)-most):]
}

// Frames returns the last that came from the slot.
func (g *Guest) Frames() [][]byte {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([][]byte(nil), g.frames...)
}

// Inject sends a frame as it is, past the guest's own stack.
func (g *Guest) Inject(frame []byte) error {
	_, err := g.tap.Write(append(make([]byte, unix.TAPHeader), frame...))
	return err
}

// Do runs f on a thread of the guest.
func (g *Guest) Do(f func() error) error { return g.ns.Do(f) }

// Serve echoes at a port of the guest, udp and tcp, until the lab ends.
func (g *Guest) Serve(port uint16) error {
	return g.lab.EchoIn(g.ns, netip.AddrPortFrom(GuestAddress, port))
}

// Dial connects from the guest to an address.
func (g *Guest) Dial(network, address string, patience time.Duration) (net.Conn, error) {
	return dial(g.ns, network, address, patience)
}

// Nonce is a text that no other packet of this guest has.
func (g *Guest) Nonce(what string) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.number++
	return fmt.Sprintf("%s %p %d", strings.ReplaceAll(what, "\n", " "), g, g.number)
}

// Echo sends a line to an echo server, by "udp" or "tcp", and waits that long for it to come back.
func (g *Guest) Echo(network string, to netip.AddrPort, patience time.Duration) error {
	conn, err := g.Dial(network, to.String(), patience)
	if err != nil {
		return err
	}
	defer conn.Close()
	return Speak(conn, g.Nonce("echo"), patience)
}

// Speak sends a line by a connection to an echo server, and waits that long for it to come back.
func Speak(conn net.Conn, line string, patience time.Duration) error {
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, line+"\n"); err != nil {
		return err
	}
	got, err := bufio.NewReader(conn).ReadString('\n')
	if err == nil && got != line+"\n" {
		err = fmt.Errorf("sent %q, got %q", line, got)
	}
	return err
}

// Send sends a datagram that holds a text.
func (g *Guest) Send(to netip.AddrPort, text string) error {
	conn, err := g.Dial("udp", to.String(), patience)
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = io.WriteString(conn, text)
	return err
}

// Look asks a resolver for the records of a type, by "udp" or "tcp".
func (g *Guest) Look(network string, resolver netip.AddrPort, name string, kind uint16, patience time.Duration) (*dns.Msg, error) {
	conn, err := g.Dial(network, resolver.String(), patience)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	reply, _, err := (&dns.Client{Net: network, Timeout: patience}).ExchangeWithConn(new(dns.Msg).SetQuestion(dns.Fqdn(name), kind), &dns.Conn{Conn: conn})
	return reply, err
}

// Get fetches a URL, http or https, from an address: the host of the URL is what is asked for there, by Host and SNI.
func (g *Guest) Get(url string, from netip.Addr, patience time.Duration) (string, error) {
	port := "80"
	if strings.HasPrefix(url, "https:") {
		port = "443"
	}
	conn, err := g.Dial("tcp", net.JoinHostPort(from.String(), port), patience) // beforehand: a client that gives up goes on dialling
	if err != nil {
		return "", err
	}
	defer conn.Close()
	c := client(func(context.Context, string, string) (net.Conn, error) { return conn, nil }, g.lab.certs.pool)
	c.Timeout = patience
	response, err := c.Get(url)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	return string(text), err
}

// Ping sends an echo request of ICMP and waits that long for its answer.
func (g *Guest) Ping(to netip.Addr, patience time.Duration) error {
	var conn net.PacketConn
	err := g.Do(func() (err error) {
		conn, err = net.ListenPacket("ip4:icmp", GuestAddress.String())
		return err
	})
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	request := append([]byte{8, 0, 0, 0, 0x12, 0x34, 0, 1}, g.Nonce("ping")...)
	put16(request[2:], sum(request))
	if _, err := conn.WriteTo(request, &net.IPAddr{IP: to.AsSlice()}); err != nil {
		return err
	}
	for data := make([]byte, 1500); ; {
		n, from, err := conn.ReadFrom(data)
		if err != nil {
			return err
		}
		if from.String() == to.String() && n == len(request) && data[0] == 0 && string(data[8:n]) == string(request[8:]) {
			return nil
		}
	}
}
