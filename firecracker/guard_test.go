//go:build linux

package firecracker

import (
	"fmt"
	"net/netip"
	"sync"
	"testing"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/egress"
	"github.com/tangle-network/microvm-runtime/internal/guard"
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
