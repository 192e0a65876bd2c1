//go:build linux

package firecracker

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/egress"
	"github.com/tangle-network/microvm-runtime/internal/firewall"
	"github.com/tangle-network/microvm-runtime/internal/netns"
	"github.com/tangle-network/microvm-runtime/internal/network"
	"github.com/tangle-network/microvm-runtime/internal/state"
	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
	"github.com/tangle-network/microvm-runtime/internal/testing/tinyguest"
)

// TestRealRecoverSlots: a process that has a hundred machines is killed, and somebody takes rules away. Each slot is then its machine's, or nobody's: leases, namespaces, links, rules,
// what is published, and flows.
func TestRealRecoverSlots(t *testing.T) {
	const machines, running = 100, 10
	r := newRig(t, ring.Real(t), false, tinyguest.Program{Text: marker + "\n"})
	r.spec.Network = &microvm.Network{
		Egress: egress.Policy{Rules: []egress.Rule{*must(egress.ParseRule("tcp:192.0.2.1:80"))}}, Publish: []microvm.Port{port("127.0.0.1:21000", 80)},
	}
	before := r.census()
	cmd := child(t.Context(), order{Options: childOptionsOf(r.options), Verb: "fleet", Spec: r.spec, Times: machines, Start: running, KillAt: "destroy/network:before"})
	out, err := cmd.CombinedOutput()
	exit := (*exec.ExitError)(nil)
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("the child did not die: %v\n%s", err, out)
	}
	leases := *must(r.driver.slots.Leases())
	if len(leases) != machines {
		t.Fatalf("%d leases", len(leases))
	}
	for number := range leases {
		r.flow(number)
	}
	r.reopen()
	r.flushHost()
	r.eachRunning(func(record *state.Record, ns *netns.Namespace) error { return flushRules(ns) })
	report, err := r.runtime.Recover(within(t), nil)
	if err != nil || len(report.Failed()) > 0 {
		t.Fatalf("%+v, %v", report, err)
	}
	kinds := map[microvm.ActionKind]int{}
	for _, action := range report {
		kinds[action.Kind]++
	}
	delete(kinds, microvm.ActionRestored) // the driver's own watch of the host's table may have been faster
	if want := map[microvm.ActionKind]int{microvm.ActionAdopted: running, microvm.ActionDestroyed: 1}; !maps.Equal(kinds, want) {
		t.Errorf("did %v: %+v", kinds, report)
	}
	r.slotsAreTheirs(machines-1, running)
	for number := range leases {
		owned := slices.Contains(slices.Collect(maps.Keys(*must(r.driver.slots.Leases()))), number)
		inside, host := r.flowsOf(number)
		if inside != owned || host != owned {
			t.Errorf("slot %d is a machine's: %t, has a flow: %t, and on the host: %t", number, owned, inside, host)
		}
	}
	for _, info := range *must(r.runtime.List(t.Context(), nil)) {
		r.destroy(r.named(info.Name))
	}
	r.slotsAreTheirs(0, 0)
	for number := range leases {
		if inside, host := r.flowsOf(number); inside || host {
			t.Errorf("slot %d was returned, and has a flow: %t, and on the host: %t", number, inside, host)
		}
	}
	r.nothingLeft(before)
}

// slotsAreTheirs checks leases, namespaces, links, rules and published ports against the records.
func (r *rig) slotsAreTheirs(machines, running int) {
	r.t.Helper()
	leases := *must(r.driver.slots.Leases())
	infos := *must(r.runtime.List(r.t.Context(), nil))
	if len(leases) != machines || len(infos) != machines {
		r.t.Errorf("%d leases and %d machines, want %d", len(leases), len(infos), machines)
	}
	seen := map[netip.Addr]bool{}
	for number, uid := range leases {
		record := must(r.driver.state.ReadRecord(uid))
		if record.Slot != number || seen[record.Address] {
			r.t.Errorf("slot %d is %s's: %+v", number, uid, record.Address)
		}
		seen[record.Address] = true
		links := r.linksOf(r.driver.slotPath(number))
		if tap, ok := links[network.TAP].(*netlink.Tuntap); !ok || links["up0"] == nil || int(tap.Owner) != r.driver.slots.Slot(number).UID {
			r.t.Errorf("slot %d has the links %v, and the TAP %+v", number, slices.Sorted(maps.Keys(links)), tap)
		}
	}
	n := r.network()
	hub := r.linksOf(n.HubPath())
	for _, number := range *must(n.Slots()) {
		if hub[fmt.Sprint("s", number)] == nil {
			r.t.Errorf("slot %d leads nowhere", number)
		}
		if leases[number] == "" && len(r.countersOf(number).Rules) > 0 {
			r.t.Errorf("slot %d is nobody's and has rules: %+v", number, r.countersOf(number))
		}
	}
	var published []firewall.Publication
	r.eachRunning(func(record *state.Record, _ *netns.Namespace) error {
		running--
		published = append(published, publications(record)...)
		counters := r.countersOf(record.Slot)
		for _, rule := range record.Rules {
			if _, ok := counters.Rules[rule.ID]; !ok || len(counters.Rules) != len(record.Rules) {
				r.t.Errorf("slot %d has the rules %+v, want %+v", record.Slot, counters.Rules, record.Rules)
			}
		}
		return nil
	})
	if running != 0 {
		r.t.Errorf("%d more run than are wanted", -running)
	}
	host := *must(n.Firewall())
	defer host.Close()
	got := *must(host.Published())
	inOrder := func(a, b firewall.Publication) int { return int(a.Port) - int(b.Port) }
	slices.SortFunc(published, inOrder)
	slices.SortFunc(got, inOrder)
	if !slices.Equal(got, published) {
		r.t.Errorf("published %v, want %v", got, published)
	}
}

func (r *rig) network() *network.Network {
	r.t.Helper()
	n, err := r.driver.network(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	return n
}

// eachRunning calls f with all machines that run, in their slots' namespaces.
func (r *rig) eachRunning(f func(*state.Record, *netns.Namespace) error) {
	r.t.Helper()
	for _, uid := range *must(r.driver.state.UIDs()) {
		run, err := r.driver.state.ReadRun(uid)
		if err != nil {
			r.t.Fatal(err)
		}
		if run == nil {
			continue
		}
		record := must(r.driver.state.ReadRecord(uid))
		ns := *must(netns.Open(r.driver.slotPath(record.Slot)))
		if err := errors.Join(f(record, ns), ns.Close()); err != nil {
			r.t.Fatal(err)
		}
	}
}

func flushRules(ns *netns.Namespace) error {
	return ns.Do(func() error {
		out, err := exec.Command("nft", "flush", "ruleset").CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
}

// linksOf returns the links of the namespace at a path by name.
func (r *rig) linksOf(path string) map[string]netlink.Link {
	r.t.Helper()
	ns := *must(netns.Open(path))
	defer ns.Close()
	return linksIn(r.t, ns)
}

func linksIn(t *testing.T, ns *netns.Namespace) map[string]netlink.Link {
	t.Helper()
	links := map[string]netlink.Link{}
	err := ns.Do(func() error {
		list, err := netlink.LinkList()
		for _, l := range list {
			links[l.Attrs().Name] = l
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return links
}

func (r *rig) inside(path string, f func() error) {
	r.t.Helper()
	ns := *must(netns.Open(path))
	if err := errors.Join(ns.Do(f), ns.Close()); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) countersOf(number int) firewall.Counters {
	r.t.Helper()
	ns := *must(netns.Open(r.driver.slotPath(number)))
	defer ns.Close()
	rules := *must(firewall.OpenSlot(ns))
	defer rules.Close()
	return *must(rules.Counters())
}

// flow lets a slot's guest have a flow, as connection tracking knows it within the slot and on the host.
func (r *rig) flow(number int) {
	r.t.Helper()
	guest, slot := r.addressesOf(number)
	r.inside(r.driver.slotPath(number), func() error { return track(guest, slot, number) })
	r.inside(r.options.hostNet.Path(), func() error { return track(slot, server, number) })
}

// flowsOf says whether a slot's guest has flows, within the slot and on the host.
func (r *rig) flowsOf(number int) (inside, host bool) {
	r.t.Helper()
	guest, slot := r.addressesOf(number)
	r.inside(r.driver.slotPath(number), func() (err error) {
		inside, err = tracked(guest)
		return err
	})
	r.inside(r.options.hostNet.Path(), func() (err error) {
		host, err = tracked(slot)
		return err
	})
	return inside, host
}

func (r *rig) addressesOf(number int) (guest, slot netip.Addr) {
	r.t.Helper()
	a, err := r.network().Addresses(number)
	if err != nil {
		r.t.Fatal(err)
	}
	return a.Guest.Addr(), a.Slot
}

var server = netip.MustParseAddr("192.0.2.1")

// track makes an entry of connection tracking: what from has sent to server, who answers to another address. Those of different slots have different ports.
func track(from, answersTo netip.Addr, number int) error {
	tuple := func(from, to netip.Addr, source, destination uint16) netlink.IPTuple {
		return netlink.IPTuple{SrcIP: net.IP(from.AsSlice()), DstIP: net.IP(to.AsSlice()), SrcPort: source, DstPort: destination, Protocol: syscall.IPPROTO_UDP}
	}
	own := uint16(1000 + number)
	return netlink.ConntrackCreate(netlink.ConntrackTable, netlink.FAMILY_V4, &netlink.ConntrackFlow{
		FamilyType: syscall.AF_INET, TimeOut: 1000, Forward: tuple(from, server, own, 80), Reverse: tuple(server, answersTo, 80, own),
	})
}

// tracked says whether there is an entry whose first packet came from an address.
func tracked(from netip.Addr) (bool, error) {
	list, err := netlink.ConntrackTableList(netlink.ConntrackTable, netlink.FAMILY_V4)
	return slices.ContainsFunc(list, func(f *netlink.ConntrackFlow) bool { return f.Forward.SrcIP.Equal(net.IP(from.AsSlice())) }), err
}
