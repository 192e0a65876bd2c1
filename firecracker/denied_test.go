//go:build linux

package firecracker

import (
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/egress"
	"github.com/tangle-network/microvm-runtime/internal/firewall"
	"github.com/tangle-network/microvm-runtime/internal/testing/fakevmm"
	"github.com/tangle-network/microvm-runtime/internal/testing/netlab"
	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
)

// deniedRig is a machine with a policy of addresses, a guest at its TAP in place of the VMM's, and the events of what is denied.
type deniedRig struct {
	*rig
	lab    *netlab.Lab
	vm     *microvm.VM
	guest  *netlab.Guest
	events chan microvm.Event
}

func newDeniedRig(t *testing.T, rules ...string) *deniedRig {
	t.Helper()
	ring.Host(t)
	lab := netlab.New(t)
	o := fakeOptionsOn(t, fakevmm.Faults{}, lab.Host)
	o.Nameservers = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:1")} // where nobody answers
	o.TellNames = true
	r := &deniedRig{rig: rigOf(t, o), lab: lab, events: make(chan microvm.Event, 1000)}
	events, err := r.runtime.Watch(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for event, err := range events {
			if err == nil && event.Type == microvm.EventDenied {
				r.events <- event
			}
		}
	}()
	r.vm = r.connected("one", microvm.Network{Egress: policyOf(t, rules...)})
	r.start(r.vm)
	r.guest = lab.Guest(t, r.driver.slotPath(must(r.driver.state.ReadRecord(r.vm.UID())).Slot))
	t.Cleanup(func() { r.guest.Close() }) // before the slot goes
	return r
}

func policyOf(t *testing.T, rules ...string) (policy egress.Policy) {
	t.Helper()
	for _, text := range rules {
		rule, err := egress.ParseRule(text)
		if err != nil {
			t.Fatal(err)
		}
		policy.Rules = append(policy.Rules, rule)
	}
	return policy
}

func (r *deniedRig) allow(rules ...string) {
	r.t.Helper()
	policy := policyOf(r.t, rules...)
	if err := r.vm.Update(r.t.Context(), microvm.Change{Egress: &policy}); err != nil {
		r.t.Fatal(err)
	}
}

// send sends a datagram to a port of the echo server's.
func (r *deniedRig) send(port uint16) {
	r.t.Helper()
	if err := r.guest.Inject(netlab.Frame{To: netip.AddrPortFrom(netlab.Echo, port), Text: "x"}.Bytes()); err != nil {
		r.t.Fatal(err)
	}
}

// next returns the next event of what was denied, calling again meanwhile.
func (r *deniedRig) next(again func()) microvm.Event {
	r.t.Helper()
	ctx := within(r.t)
	for {
		again()
		select {
		case event := <-r.events:
			return event
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			r.t.Fatal("nothing is told")
		}
	}
}

func nothing() {}

// expect checks that an event is of this machine, and of what a rule opens.
func (r *deniedRig) expect(event microvm.Event, rule string) {
	r.t.Helper()
	if event.UID != r.vm.UID() || event.Name != "one" || event.Denied == nil || event.Denied.Opens().String() != rule || event.Denied.Packets != 1 {
		r.t.Errorf("told %+v, %+v; want what %s opens", event, event.Denied, rule)
	}
}

// TestHostDeniedFlowIsTold with machine, destination and the rule that opens it, and passes by that rule.
func TestHostDeniedFlowIsTold(t *testing.T) {
	r := newDeniedRig(t, "udp:5.9.9.7:7")
	r.expect(r.next(func() { r.send(7003) }), "udp:5.9.9.7:7003") // who hears of it may only just come
	if err := r.guest.Echo("udp", netip.AddrPortFrom(netlab.Echo, 7), 10*time.Second); err != nil {
		t.Errorf("what is allowed: %v", err)
	}
	r.send(7001)
	r.expect(r.next(nothing), "udp:5.9.9.7:7001")
	r.allow("udp:5.9.9.7:7", "udp:5.9.9.7:7001")
	if err := r.guest.Echo("udp", netip.AddrPortFrom(netlab.Echo, 7001), 10*time.Second); err != nil {
		t.Errorf("what its rule allows: %v", err)
	}
	r.send(7002)
	r.expect(r.next(nothing), "udp:5.9.9.7:7002")
}

// TestHostDeniedFlowsAreToldSeldom: one flow once, and many no faster than the journal bears. All are counted.
func TestHostDeniedFlowsAreToldSeldom(t *testing.T) {
	const flows, burst, perSecond = 500, 50, 10
	r := newDeniedRig(t)
	r.expect(r.next(func() { r.send(7001) }), "udp:5.9.9.7:7001")
	begin := time.Now()
	for i := range uint16(flows) {
		r.send(10000 + i)
		r.send(7001)
	}
	seen, told := map[microvm.DeniedFlow]bool{}, 0
	for last := uint16(20000); ; told++ { // one of these is told when a place is free again: all before it was
		event := r.next(func() { r.send(last); last++ })
		if seen[*event.Denied] || event.Denied.Port == 7001 {
			t.Errorf("%+v is told again", event.Denied)
		}
		seen[*event.Denied] = true
		if event.Denied.Port >= 20000 {
			break
		}
	}
	if most := burst + perSecond*(1+time.Since(begin)/time.Second); told == 0 || told > int(most) {
		t.Errorf("%d are told, at most %d should be", told, most)
	}
	stats, err := r.vm.Stats(t.Context())
	if err != nil || stats.Network.Drops[firewall.DropDenied] < 2*flows {
		t.Errorf("of %d there are counted %+v, %v", 2*flows, stats.Network, err)
	}
}

// TestHostDeniedNameIsTold, and not when it is allowed.
func TestHostDeniedNameIsTold(t *testing.T) {
	r := newDeniedRig(t)
	r.expect(r.next(func() { r.send(7001) }), "udp:5.9.9.7:7001")
	look := func(name string, want int) {
		t.Helper()
		reply, err := r.guest.Look("udp", netip.AddrPortFrom(netlab.Gateway, 53), name, dns.TypeA, 10*time.Second)
		if err != nil || reply.Rcode != want {
			t.Fatalf("%s: %v, %v", name, reply, err)
		}
	}
	look("one.example", dns.RcodeRefused)
	look("one.example", dns.RcodeRefused)
	r.expect(r.next(nothing), "one.example")
	r.allow("two.example:443")
	look("two.example", dns.RcodeServerFailure)
	look("three.example", dns.RcodeRefused)
	r.expect(r.next(nothing), "three.example")
}
