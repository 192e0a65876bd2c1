//go:build linux

package firecracker

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"github.com/miekg/dns"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/egress"
	"github.com/tangle-network/microvm-runtime/internal/testing/netlab"
	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
)

// labNet is two machines on a stand-in for a host whose uplink leads to servers.
type labNet struct {
	*labRig
	lab       *netlab.Lab
	vm, other *microvm.VM
	in        *prober // in vm
	next      *prober // in the other
	otherInfo microvm.NetworkInfo
}

const (
	labPort   = 8080
	labServer = "echo.example"
)

// Everything that running machines can show of their network: a boot is dear.
func TestLabNetwork(t *testing.T) {
	ring.Lab(t)
	n := newLabNet(t)
	t.Run("what a guest has", func(t *testing.T) { n.testInside(t) })
	t.Run("policy", func(t *testing.T) { n.testPolicy(t) })
	t.Run("cut", func(t *testing.T) { n.testCut(t) })
	t.Run("published", func(t *testing.T) { n.testPublished(t) })
	t.Run("spoofed", func(t *testing.T) { n.testSpoofed(t) })
	t.Run("rates", func(t *testing.T) { n.testRates(t) })
	for _, vm := range []*microvm.VM{n.vm, n.other} {
		if err := vm.Destroy(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func newLabNet(t *testing.T) *labNet {
	t.Helper()
	n := &labNet{lab: netlab.New(t)}
	names := serveNames(t, map[string]netip.Addr{labServer: netlab.Echo})
	n.labRig = newLabRigOn(t, false, n.lab.Host, func(o *Options) { o.Nameservers, o.TellNames = []netip.AddrPort{names}, true })
	if err := n.lab.EchoIn(n.lab.Host, netip.AddrPortFrom(netlab.HostWAN, 7)); err != nil {
		t.Fatal(err)
	}
	n.vm = n.create(microvm.Spec{
		Network: &microvm.Network{Publish: []microvm.Port{{Protocol: egress.TCP, Guest: labPort, Host: netip.AddrPortFrom(netip.IPv4Unspecified(), labPort)}}},
		Drives:  []microvm.Drive{{Path: largeDisk(t)}},
	})
	n.other = n.create(n.limited(t))
	var starting sync.WaitGroup
	for _, vm := range []*microvm.VM{n.vm, n.other} {
		starting.Go(func() {
			if err := vm.Start(t.Context(), nil); err != nil {
				t.Errorf("%v\nconsole:\n%s", err, n.console(vm))
			}
		})
	}
	starting.Wait()
	if t.Failed() {
		t.FailNow()
	}
	n.in, n.next = newProber(t, n.vm), newProber(t, n.other)
	info, err := n.other.Info(t.Context())
	if err != nil || info.Network == nil {
		t.Fatalf("%+v, %v", info, err)
	}
	n.otherInfo = *info.Network
	for _, p := range []*prober{n.in, n.next} {
		told[bool](t, p, proberOrder{Do: "serve", To: []any{"", labPort}})
	}
	return n
}

// serveNames is a server of names on this host.
func serveNames(t *testing.T, names map[string]netip.Addr) netip.AddrPort {
	t.Helper()
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &dns.Server{PacketConn: conn, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, query *dns.Msg) {
		reply := new(dns.Msg).SetReply(query)
		for _, q := range query.Question {
			if address, ok := names[q.Name[:len(q.Name)-1]]; ok && q.Qtype == dns.TypeA {
				reply.Answer = append(reply.Answer, &dns.A{Hdr: dns.RR_Header{Name: q.Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: address.AsSlice()})
			}
		}
		w.WriteMsg(reply)
	})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		server.ActivateAndServe()
	}()
	t.Cleanup(func() {
		conn.Close()
		<-done
	})
	return conn.LocalAddr().(*net.UDPAddr).AddrPort()
}

// allow makes rules the policy of a machine that runs.
func (r *labRig) allow(t *testing.T, vm *microvm.VM, rules ...string) {
	t.Helper()
	policy := policyOf(t, rules...)
	if err := vm.Update(t.Context(), microvm.Change{Egress: &policy}); err != nil {
		t.Fatal(err)
	}
}

// testInside: the guest has its address, its route and its resolver without having asked anybody.
func (n *labNet) testInside(t *testing.T) {
	want := "172.16.0.2\n172.16.0.1\neth0 010010AC\n06:00:ac:10:00:02"
	got := sh(t, n.vm, `hostname -I | tr -d ' '; sed -n 's/^nameserver //p' /etc/resolv.conf; while read dev to via rest; do [ "$to" = 00000000 ] && echo $dev $via; done < /proc/net/route; cat /sys/class/net/eth0/address`)
	if got != want {
		t.Errorf("it has\n%s\nwant\n%s", got, want)
	}
}

// testPolicy: nothing passes that no rule names, each thing passes by its rule, and what was denied is told.
func (n *labNet) testPolicy(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), proberSoon)
	defer cancel()
	events, err := n.runtime.Watch(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	flows := map[string]string{ // and the rule that opens each
		"tcp " + netlab.Echo.String() + ":7001":         "tcp:" + netlab.Echo.String() + "/32:7001",
		"udp " + netlab.Echo.String() + ":7":            "udp:" + netlab.Echo.String() + "/32:7",
		"tcp " + netlab.HostWAN.String() + ":7":         netlab.HostWAN.String() + "/32:7",
		"tcp " + netlab.Metadata.String() + ":7":        netlab.Metadata.String() + "/32",
		"udp " + netlab.Private.String() + ":7":         "10.9.9.0/24",
		"tcp " + n.otherInfo.Address.String() + ":8080": n.otherInfo.Address.String() + "/32:8080",
	}
	var all, rules []string
	for flow, rule := range flows {
		all, rules = append(all, flow), append(rules, rule)
	}
	byName := "tcp " + netlab.Echo.String() + ":7002"
	for flow, passed := range n.in.passes(t, proberNot, append(all, byName)...) {
		if passed {
			t.Errorf("%s passed without a rule", flow)
		}
	}
	if got := told[[]string](t, n.in, proberOrder{Do: "look", Text: labServer}); len(got) > 0 {
		t.Errorf("%s is %v without a rule", labServer, got)
	}
	if came := n.lab.Came(nil); len(came) > 0 {
		t.Errorf("without a rule there came %+v", came)
	}
	if _, err := find(events, func(e microvm.Event) bool {
		return e.Type == microvm.EventDenied && e.UID == n.vm.UID() && e.Denied.Opens().String() == netlab.Echo.String()+":7001"
	}); err != nil {
		t.Errorf("no event tells what was denied: %v", err)
	}
	n.checkDenied(t)

	n.allow(t, n.vm, append(rules, labServer+":7002")...)
	if got := told[[]string](t, n.in, proberOrder{Do: "look", Text: labServer}); !slices.Equal(got, []string{netlab.Echo.String()}) {
		t.Errorf("%s is %v", labServer, got)
	}
	for flow, passed := range n.in.passes(t, proberSoon, append(all, byName)...) {
		if !passed {
			t.Errorf("%s did not pass by its rule", flow)
		}
	}
	stats, err := n.vm.Stats(t.Context())
	if err != nil || len(stats.Network.Rules) != len(rules)+1 {
		t.Fatalf("%+v, %v", stats.Network, err)
	}
	for _, rule := range stats.Network.Rules {
		if rule.Packets < 2 || rule.Bytes < 2*28 {
			t.Errorf("%s has counted %d packets, %d bytes", rule.Rule, rule.Packets, rule.Bytes)
		}
	}
}

// find returns the first event that is wanted.
func find(events func(func(microvm.Event, error) bool), want func(microvm.Event) bool) (microvm.Event, error) {
	for event, err := range events {
		if err != nil || want(event) {
			return event, err
		}
	}
	return microvm.Event{}, errors.New("the events have ended")
}

// checkDenied: the statistics have the flow, and the name, that were denied.
func (n *labNet) checkDenied(t *testing.T) {
	t.Helper()
	stats, err := n.vm.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for what, want := range map[string]func(microvm.DeniedFlow) bool{
		"flow": func(d microvm.DeniedFlow) bool {
			return d.Protocol == egress.TCP && d.Address == netlab.Metadata && d.Port == 7 && d.Packets > 0
		},
		"name": func(d microvm.DeniedFlow) bool { return d.Name == labServer && d.Packets > 0 },
	} {
		if !slices.ContainsFunc(stats.Network.Denied, want) {
			t.Errorf("the %s is not among what was denied: %+v", what, stats.Network.Denied)
		}
	}
}

// testCut: an update cuts the flow that it forbids, and not the other.
func (n *labNet) testCut(t *testing.T) {
	server := netlab.Echo.String()
	goes, stays := netip.AddrPortFrom(netlab.Echo, 7001), netip.AddrPortFrom(netlab.Echo, 7002)
	n.allow(t, n.vm, server+"/32:7001", server+"/32:7002")
	for name, at := range map[string]netip.AddrPort{"goes": goes, "stays": stays} {
		if !told[bool](t, n.in, proberOrder{Do: "hold", Text: name, To: to(at), Wait: proberSoon.Seconds()}) {
			t.Fatalf("%s: nothing came back", name)
		}
	}
	n.allow(t, n.vm, server+"/32:7002")
	if told[bool](t, n.in, proberOrder{Do: "again", Text: "goes", Wait: proberNot.Seconds()}) {
		t.Error("a flow that is forbidden goes on")
	}
	if !told[bool](t, n.in, proberOrder{Do: "again", Text: "stays", Wait: proberSoon.Seconds()}) {
		t.Error("a flow that is allowed was cut")
	}
}

// testPublished: the guest's server is reached at the host's port, from outside and from the host, until it is published no more.
func (n *labNet) testPublished(t *testing.T) {
	at := netip.AddrPortFrom(netlab.HostWAN, labPort).String()
	from := map[string]func() error{
		"outside": func() error { return reach(n.lab.Dial("tcp", at, proberSoon)) },
		"the host": func() error {
			return n.lab.Host.Do(func() error { return reach(net.DialTimeout("tcp", at, proberSoon)) })
		},
	}
	for who, try := range from {
		if err := try(); err != nil {
			t.Errorf("from %s: %v", who, err)
		}
	}
	if err := n.vm.Update(t.Context(), microvm.Change{Publish: &[]microvm.Port{}}); err != nil {
		t.Fatal(err)
	}
	for who, try := range from {
		if err := try(); err == nil {
			t.Errorf("from %s it is reached though it is not published", who)
		}
	}
}

// reach speaks with an echo server.
func reach(conn net.Conn, err error) error {
	if err != nil {
		return err
	}
	defer conn.Close()
	return netlab.Speak(conn, "reached", proberSoon)
}

// testSpoofed: a datagram with another source than the guest's own gets nowhere; with its own it arrives.
func (n *labNet) testSpoofed(t *testing.T) {
	n.allow(t, n.vm, "udp:"+netlab.Echo.String()+"/32:7")
	for _, from := range []string{"172.16.0.6", n.otherInfo.Address.String(), netlab.GuestAddress.String()} { // what is honest is the last
		told[bool](t, n.in, proberOrder{Do: "raw", From: from, To: to(netip.AddrPortFrom(netlab.Echo, 7)), Text: "of " + from})
	}
	if _, err := n.lab.Await(netlab.Text("of " + netlab.GuestAddress.String())); err != nil {
		t.Error(err)
	}
	for _, from := range []string{"172.16.0.6", n.otherInfo.Address.String()} {
		if came := n.lab.Came(netlab.Text("of " + from)); len(came) > 0 {
			t.Errorf("a source that is not the guest's came as %+v", came)
		}
	}
	if stats, err := n.vm.Stats(t.Context()); err != nil || stats.Network.Drops["spoofed_address"] < 2 {
		t.Errorf("dropped %v, %v", stats.Network.Drops, err)
	}
}
