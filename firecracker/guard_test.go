//go:build linux

package firecracker

import (
	"fmt"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/egress"
	"github.com/tangle-network/microvm-runtime/internal/guard"
	"github.com/tangle-network/microvm-runtime/internal/testing/netlab"
	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
	"github.com/tangle-network/microvm-runtime/internal/testing/tinyguest"
)

// guardPIDs are the processes in the guard's leaf, of which none is expected where no guard lives.
func (r *rig) guardPIDs() []int {
	r.t.Helper()
	lives, err := guard.Lives(r.driver.guardPath())
	if err != nil {
		r.t.Fatal(err)
	}
	leaf, err := r.driver.slice.Leaf(guardDir)
	if err != nil {
		r.t.Fatal(err)
	}
	if leaf == nil {
		if lives {
			r.t.Error("the guard lives outside of its leaf")
		}
		return nil
	}
	defer leaf.Close()
	pids, err := leaf.Procs()
	if err != nil || lives != (len(pids) > 0) {
		r.t.Errorf("the guard lives: %t, and in its leaf is %v, %v", lives, pids, err)
	}
	return pids
}

// TestRealOneGuardForAll: machines that are started at once get one guard, in a leaf of its own; so does one that takes its place because it is told something else.
func TestRealOneGuardForAll(t *testing.T) {
	r := newRig(t, ring.Real(t), false, tinyguest.Program{Text: marker + "\n"})
	r.spec.Network = &microvm.Network{Egress: egress.Policy{Rules: []egress.Rule{{Name: "example.com"}}}}
	var vms []*microvm.VM
	for i := range 4 {
		vms = append(vms, r.create(fmt.Sprint("machine-", i)))
	}
	var starting sync.WaitGroup
	for _, vm := range vms {
		starting.Go(func() {
			if err := vm.Start(t.Context(), nil); err != nil {
				t.Error(err)
			}
		})
	}
	starting.Wait()
	first := r.guardPIDs()
	if len(first) != 1 {
		t.Fatalf("guards %v, want one", first)
	}
	r.options.Nameservers = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:5353")}
	r.reopen()
	vm, err := r.runtime.VM(t.Context(), vms[0].UID())
	if err != nil {
		t.Fatal(err)
	}
	if err := vm.Update(t.Context(), microvm.Change{Egress: &egress.Policy{Rules: []egress.Rule{{Name: "other.example"}}}}); err != nil {
		t.Fatal(err)
	}
	if second := r.guardPIDs(); len(second) != 1 || second[0] == first[0] {
		t.Errorf("guards %v, want one in place of %v", second, first)
	}
}

// TestRealGuardTellsNames: a machine without names has a guard where names are to be told, and none otherwise.
func TestRealGuardTellsNames(t *testing.T) {
	r := newRig(t, ring.Real(t), false, tinyguest.Program{Text: marker + "\n"})
	for i, tell := range []bool{false, true} {
		r.options.TellNames = tell
		r.reopen()
		r.start(r.create(fmt.Sprint("machine-", i)))
		if pids := r.guardPIDs(); len(pids) != i {
			t.Errorf("TellNames %t: guards %v, want %d", tell, pids, i)
		}
	}
}

// TestHostGuardKilled: without it no name is answered and nothing is opened, and what addresses allow goes on. Recover, and an update that finds it gone, begin another.
func TestHostGuardKilled(t *testing.T) {
	r := newDeniedRig(t, "udp:5.9.9.7:7")
	answered := func(patience time.Duration) bool {
		reply, err := r.guest.Look("udp", netip.AddrPortFrom(netlab.Gateway, 53), "one.example", dns.TypeA, patience)
		return err == nil && reply.Rcode == dns.RcodeRefused
	}
	for what, again := range map[string]func() error{
		"recover": func() error { _, err := r.runtime.Recover(t.Context(), nil); return err },
		"update": func() error {
			policy := policyOf(t, "udp:5.9.9.7:7", "example.com")
			return r.vm.Update(t.Context(), microvm.Change{Egress: &policy})
		},
	} {
		if !answered(10 * time.Second) {
			t.Fatalf("before %s no name is answered", what)
		}
		for _, pid := range r.guardPIDs() {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
		for ctx := within(t); *must(guard.Lives(r.driver.guardPath())); {
			if ctx.Err() != nil {
				t.Fatal("the guard lives on")
			}
		}
		if answered(150 * time.Millisecond) {
			t.Errorf("before %s a guard that is gone answers", what)
		}
		r.passes(7, 7001)
		if err := again(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if !answered(10 * time.Second) {
			t.Errorf("after %s no name is answered", what)
		}
		r.passes(7, 7001)
	}
}
