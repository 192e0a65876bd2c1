//go:build linux

package firecracker

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/egress"
	"github.com/tangle-network/microvm-runtime/internal/firewall"
	"github.com/tangle-network/microvm-runtime/internal/testing/fakevmm"
	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
)

// newNetworkRig is a rig of fake VMMs whose machines can have networks.
func newNetworkRig(t *testing.T) *rig {
	t.Helper()
	ring.Host(t)
	return rigOf(t, fakeOptions(t, fakevmm.Faults{}))
}

func rigOf(t *testing.T, o Options) *rig {
	t.Helper()
	r := &rig{t: t, options: o, spec: tiny}
	r.options.hook = func(point string) error {
		r.mu.Lock()
		hook := r.hook
		r.mu.Unlock()
		if hook == nil {
			return nil
		}
		return hook(point)
	}
	r.reopen()
	t.Cleanup(func() { r.runtime.Close() })
	return r
}

// connected makes a machine with a network.
func (r *rig) connected(name string, n microvm.Network) *microvm.VM {
	r.t.Helper()
	spec := r.spec.Copy()
	spec.Network = &n
	vm, err := r.runtime.Create(r.t.Context(), name, spec)
	if err != nil {
		r.t.Fatal(err)
	}
	return vm
}

// published is what the host's table has, as lines "tcp ADDRESS:PORT to GUESTPORT of MACHINE".
func (r *rig) published(machines ...*microvm.VM) []string {
	r.t.Helper()
	n, err := r.driver.network(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	host, err := n.Firewall()
	if err != nil {
		r.t.Fatal(err)
	}
	defer host.Close()
	list, err := host.Published()
	if err != nil {
		r.t.Fatal(err)
	}
	names := map[netip.Addr]string{}
	for i, vm := range machines {
		info, err := vm.Info(r.t.Context())
		if err != nil {
			r.t.Fatal(err)
		}
		names[info.Network.Address] = fmt.Sprint(i)
	}
	lines := []string{}
	for _, p := range list {
		lines = append(lines, fmt.Sprintf("%s %s to %d of %s", p.Protocol, netip.AddrPortFrom(p.Address, p.Port), p.To.Port(), names[p.To.Addr()]))
	}
	return lines
}

// port publishes a port of the guest's at one of the host's.
func port(host string, guest uint16) microvm.Port {
	return microvm.Port{Protocol: egress.TCP, Guest: guest, Host: netip.MustParseAddrPort(host)}
}

func public() egress.Policy {
	return egress.Policy{Rules: []egress.Rule{{CIDR: netip.MustParsePrefix("0.0.0.0/0")}}}
}

// TestHostStatsBelongToTheMachine: one that is being made has no slot yet, and its record names none.
func TestHostStatsBelongToTheMachine(t *testing.T) {
	r := newNetworkRig(t)
	first := r.connected("first", microvm.Network{Egress: public()})
	if err := first.Start(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	stats, err := first.Stats(t.Context())
	if err != nil || len(stats.Network.Rules) != 1 || stats.Network.Drops[firewall.DropDenied] != 0 || len(stats.Network.Drops) == 0 {
		t.Fatalf("of one that runs: %+v, %v", stats.Network, err)
	}
	var looked atomic.Int64 // the driver's own work on the host passes points too
	r.setHook(func(point string) error {
		if point == "create/commit:after" || point == "destroy/record:before" { // it has one
			return nil
		}
		uids, err := r.driver.state.UIDs()
		if err != nil {
			return err
		}
		for _, uid := range uids {
			if uid == first.UID() {
				continue
			}
			stats, err := r.driver.Stats(t.Context(), uid)
			if err != nil || stats.Network != nil && len(stats.Network.Drops) > 0 {
				t.Errorf("at %s: %+v, %v", point, stats.Network, err)
			}
			looked.Add(1)
		}
		return nil
	})
	second := r.connected("second", microvm.Network{Egress: public()})
	if err := second.Destroy(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.setHook(nil)
	if looked.Load() == 0 {
		t.Error("nobody looked")
	}
}

// TestHostOneGuestPortAtTwoOfTheHosts: who serves on one port may publish it at each of the host's addresses.
func TestHostOneGuestPortAtTwoOfTheHosts(t *testing.T) {
	r := newNetworkRig(t)
	vm := r.connected("one", microvm.Network{Publish: []microvm.Port{port("127.0.0.1:18090", 80), port("127.0.0.1:18091", 80)}})
	if err := vm.Start(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if got, want := r.published(vm), []string{"tcp 127.0.0.1:18090 to 80 of 0", "tcp 127.0.0.1:18091 to 80 of 0"}; !slices.Equal(got, want) {
		t.Errorf("published %q, want %q", got, want)
	}
}

// TestHostPortOfOneThatIsStopped: what a stopped machine publishes no more, another can.
func TestHostPortOfOneThatIsStopped(t *testing.T) {
	r := newNetworkRig(t)
	first := r.connected("first", microvm.Network{Publish: []microvm.Port{port("127.0.0.1:18092", 80)}})
	if err := first.Start(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := first.Stop(t.Context(), &microvm.StopOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	if err := first.Update(t.Context(), microvm.Change{Publish: &[]microvm.Port{}}); err != nil {
		t.Fatal(err)
	}
	second := r.connected("second", microvm.Network{Publish: []microvm.Port{port("127.0.0.1:18092", 81)}})
	if err := second.Start(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(r.published(first, second), ", "), "tcp 127.0.0.1:18092 to 81 of 1"; got != want {
		t.Errorf("published %q, want %q", got, want)
	}
}

// TestHostPortsOfOthersAreBack: who finds the host's table gone publishes again what machines have that nobody watches.
func TestHostPortsOfOthersAreBack(t *testing.T) {
	r := newNetworkRig(t)
	first := r.connected("first", microvm.Network{Publish: []microvm.Port{port("127.0.0.1:18093", 80)}})
	if err := first.Start(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	want := []string{"tcp 127.0.0.1:18093 to 80 of 0"}
	if got := r.published(first); !slices.Equal(got, want) {
		t.Fatalf("published %q, want %q", got, want)
	}
	if err := r.runtime.Close(); err != nil {
		t.Fatal(err)
	}
	r.runtime = nil
	r.flushHost()
	r.reopen()
	second := r.connected("second", microvm.Network{})
	ctx := within(t)
	for !slices.Equal(r.published(r.named("first"), second), want) {
		if ctx.Err() != nil {
			t.Fatalf("published %q, want %q", r.published(r.named("first"), second), want)
		}
	}
}

// TestHostPortsAreRestoredAsTheyAre: a machine that is destroyed or updated while the host's table is restored is not published as it was before.
func TestHostPortsAreRestoredAsTheyAre(t *testing.T) {
	r := newNetworkRig(t)
	for i, row := range []struct {
		change func(*microvm.VM) error
		want   []string
	}{
		{func(vm *microvm.VM) error { return vm.Destroy(t.Context()) }, []string{}},
		{func(vm *microvm.VM) error {
			return vm.Update(t.Context(), microvm.Change{Publish: &[]microvm.Port{port("127.0.0.1:18096", 80)}})
		}, []string{"tcp 127.0.0.1:18096 to 80 of "}},
	} {
		vm := r.connected(fmt.Sprint("machine-", i), microvm.Network{Publish: []microvm.Port{port("127.0.0.1:18095", 80)}})
		r.start(vm)
		changed := make(chan error, 1)
		r.setHook(func(point string) error {
			if point == "host-table/publish:before" { // the record is read
				go func() { changed <- row.change(vm) }()
				select {
				case err := <-changed:
					changed <- err
				case <-time.After(300 * time.Millisecond): // it waits, as it should
				}
			}
			return nil
		})
		if err := r.driver.restoreHost(within(t)); err != nil {
			t.Fatal(err)
		}
		r.setHook(nil)
		if err := <-changed; err != nil {
			t.Fatal(err)
		}
		if got := r.published(); !slices.Equal(got, row.want) {
			t.Errorf("published %q, want %q", got, row.want)
		}
	}
}

// TestHostPortsOfOneThatIsWorkedOn are published again too, once that is done.
func TestHostPortsOfOneThatIsWorkedOn(t *testing.T) {
	r := newNetworkRig(t)
	vm := r.connected("one", microvm.Network{Publish: []microvm.Port{port("127.0.0.1:18097", 80)}})
	r.start(vm)
	lock := *must(r.driver.state.Lock(t.Context(), vm.UID()))
	r.flushHost()
	if err := r.driver.restoreHost(within(t)); err != nil {
		t.Fatal(err)
	}
	if got := r.published(); len(got) > 0 {
		t.Errorf("published %q while it is worked on", got)
	}
	lock.Unlock()
	ctx := within(t)
	for len(r.published(vm)) == 0 {
		if ctx.Err() != nil {
			t.Fatal("nothing is published")
		}
	}
}
