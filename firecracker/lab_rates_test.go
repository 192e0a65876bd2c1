//go:build linux

package firecracker

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/egress"
	"github.com/tangle-network/microvm-runtime/internal/testing/netlab"
)

// What limited devices may do in a second.
const (
	rateBytes   = 16 << 10
	ratePackets = 10
	rateReads   = 20
)

// What is offered to a guest in a second, in bytes: with a limit, and without. More takes the emulated host's time from all others.
const (
	offeredLimited = 3 * rateBytes
	offeredFree    = 128 * rateBytes
)

// How long is measured, after what a limit lets through at its begin.
const (
	rateSkip  = 2 * time.Second
	rateWhile = 10 * time.Second
	rateFree  = time.Second     // without a limit
	freeSkip  = time.Second / 2 // until a device without a limit is as fast as it gets
)

// Of frames and reads, in bytes.
const (
	datagram     = 1400        // with its headers
	frameHeaders = 14 + 20 + 8 // of Ethernet, IPv4 and UDP
	readSize     = 4 << 10
)

// limited is a machine with limits from its create on.
func (n *labNet) limited(t *testing.T) microvm.Spec {
	return microvm.Spec{
		Network: &microvm.Network{
			Egress:   egress.Policy{Rules: []egress.Rule{{CIDR: netip.PrefixFrom(netlab.Echo, 32)}}},
			Publish:  []microvm.Port{{Protocol: egress.TCP, Guest: labPort}},
			Receive:  &microvm.RateLimit{BytesPerSecond: rateBytes},
			Transmit: &microvm.RateLimit{OpsPerSecond: ratePackets},
		},
		Drives: []microvm.Drive{{Path: largeDisk(t), Limit: &microvm.RateLimit{OpsPerSecond: rateReads}}},
	}
}

func largeDisk(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "large")
	if err := os.WriteFile(path, make([]byte, 16<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// meter counts what arrives.
type meter struct {
	mu    sync.Mutex
	total int64
}

func (m *meter) add(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.total += int64(n)
}

func (m *meter) now() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.total
}

// over returns what arrives in a second, over a while after a while.
func (m *meter) over(skip, while time.Duration) float64 {
	time.Sleep(skip)
	before, begin := m.now(), time.Now()
	time.Sleep(while)
	return float64(m.now()-before) / time.Since(begin).Seconds()
}

// load is what a guest's device can be made to do, and how much of it was done.
type load struct {
	order proberOrder
	meter *meter // what the guest can't count itself
}

// run measures a load of a guest.
func (l load) run(p *prober, skip, while time.Duration) (float64, error) {
	l.order.Skip, l.order.Seconds = skip.Seconds(), while.Seconds()
	answer := p.begin(l.order)
	if l.meter == nil {
		var rate float64
		err := answer(&rate)
		return rate, err
	}
	l.order.Seconds++ // it begins before what is measured, and ends after it
	rate := l.meter.over(skip, while)
	var done bool
	return rate, answer(&done)
}

// servers are in the internet, at an address's port and the next: one sends as much as it is told to, one counts what it gets. Once the first was told, asked is closed.
func (n *labNet) servers(t *testing.T, port uint16) (bytes, packets *meter, asked chan struct{}) {
	t.Helper()
	bytes, packets, asked = &meter{}, &meter{}, make(chan struct{})
	ask := sync.OnceFunc(func() { close(asked) })
	n.serveDatagrams(t, port, func(conn *net.UDPConn, to netip.AddrPort, told []byte) {
		ask()
		pour(conn, to, told)
	})
	n.serveDatagrams(t, port+1, func(_ *net.UDPConn, _ netip.AddrPort, data []byte) {
		bytes.add(len(data) + frameHeaders)
		packets.add(1)
	})
	return bytes, packets, asked
}

// pour sends as many bytes a second as it is told, for as many seconds.
func pour(conn *net.UDPConn, to netip.AddrPort, told []byte) {
	const pause = 10 * time.Millisecond
	var rate, seconds int
	if _, err := fmt.Sscan(string(told), &rate, &seconds); err != nil {
		return
	}
	data := make([]byte, datagram-frameHeaders)
	sent, begin := 0, time.Now()
	for ; time.Since(begin) < time.Duration(seconds)*time.Second; time.Sleep(pause) {
		for ; float64(sent) < float64(rate)*time.Since(begin).Seconds(); sent += datagram {
			if _, err := conn.WriteToUDPAddrPort(data, to); errors.Is(err, net.ErrClosed) {
				return
			}
		}
	}
}

func (n *labNet) serveDatagrams(t *testing.T, port uint16, handle func(conn *net.UDPConn, from netip.AddrPort, data []byte)) {
	t.Helper()
	var conn *net.UDPConn
	err := n.lab.Outside(func() (err error) {
		conn, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(netlab.Echo, port)))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for data := make([]byte, 2048); ; {
			size, from, err := conn.ReadFromUDPAddrPort(data)
			if err != nil {
				return
			}
			handle(conn, from, data[:size])
		}
	})
	t.Cleanup(func() {
		conn.Close()
		serving.Wait()
	})
}

// loads are what a guest's devices can be made to do, with servers of its own, of which one offers so many bytes a second.
func (n *labNet) loads(t *testing.T, port uint16, offered int) (loads map[string]load, asked chan struct{}) {
	bytes, packets, asked := n.servers(t, port)
	from, into := to(netip.AddrPortFrom(netlab.Echo, port)), to(netip.AddrPortFrom(netlab.Echo, port+1))
	return map[string]load{
		"receive":  {proberOrder{Do: "receive", To: from, Size: offered}, nil},
		"transmit": {proberOrder{Do: "transmit", To: into, Size: datagram}, bytes},
		"packets":  {proberOrder{Do: "transmit", To: into, Size: frameHeaders + 8}, packets},
		"read":     {proberOrder{Do: "read", Text: "/dev/vdc", Size: readSize}, nil},
		"reads":    {proberOrder{Do: "read", Text: "/dev/vdc", Size: readSize}, nil},
	}, asked
}

// testRates: a device's limit holds, from its create on or from an update on, and is much less than the device does without one.
func (n *labNet) testRates(t *testing.T) {
	n.allow(t, n.vm, netlab.Echo.String())
	free := map[string]float64{}
	unlimited, _ := n.loads(t, 9000, offeredFree)
	for _, name := range []string{"receive", "transmit", "packets", "read", "reads"} { // what is poured in first is all gone when the limits come: else it waits for them, before what is measured then
		rate, err := unlimited[name].run(n.in, freeSkip, rateFree)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		free[name] = rate
	}
	limit := &microvm.RateLimit{BytesPerSecond: rateBytes}
	err := n.vm.Update(t.Context(), microvm.Change{Receive: limit, Transmit: limit, DriveLimit: map[int]microvm.RateLimit{0: *limit}})
	if err != nil {
		t.Fatal(err)
	}
	ours, oursAsked := n.loads(t, 9100, offeredLimited)
	theirs, theirsAsked := n.loads(t, 9200, offeredLimited)
	var running sync.WaitGroup
	measure := func(p *prober, l load, name, since string, want float64) {
		running.Go(func() {
			rate, err := l.run(p, rateSkip, rateWhile)
			report := fmt.Sprintf("%s, limited %s: %.0f a second, limit %.0f, %.0f without", name, since, rate, want, free[name])
			t.Log(report)
			if err != nil || math.Abs(rate-want) > 0.15*want || want > 0.2*free[name] {
				t.Errorf("%s, %v", report, err)
			}
		})
	}
	measure(n.in, ours["receive"], "receive", "by an update", rateBytes)
	measure(n.next, theirs["receive"], "receive", "at create", rateBytes)
	for _, asked := range []chan struct{}{oursAsked, theirsAsked} { // before what else they send waits for the limit
		select {
		case <-asked:
		case <-time.After(proberSoon):
			t.Error("nobody asked for anything to receive")
		}
	}
	measure(n.in, ours["transmit"], "transmit", "by an update", rateBytes)
	measure(n.in, ours["read"], "read", "by an update", rateBytes)
	measure(n.next, theirs["packets"], "packets", "at create", ratePackets)
	measure(n.next, theirs["reads"], "reads", "at create", rateReads*readSize)
	running.Wait()
}
