//go:build linux

package firecracker

import (
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/network"
	"github.com/tangle-network/microvm-runtime/internal/testing/fakevmm"
	"github.com/tangle-network/microvm-runtime/internal/testing/netlab"
	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
)

// TestHostTwoStateDirectories on one host: each has its machine's network, also after somebody flushed the rules and both recovered, and the end of one is not that of the other.
func TestHostTwoStateDirectories(t *testing.T) {
	ring.Host(t)
	lab := netlab.New(t)
	const firstPort = 18110
	var rigs []*rig
	var guests []*netlab.Guest
	for i := range 2 {
		r := rigOf(t, fakeOptionsOn(t, fakevmm.Faults{}, lab.Host))
		vm := r.connected("one", microvm.Network{Egress: policyOf(t, "udp:5.9.9.7:7"), Publish: []microvm.Port{port(fmt.Sprint("127.0.0.1:", firstPort+i), 80)}})
		r.start(vm)
		guest := lab.Guest(t, r.driver.slotPath(must(r.driver.state.ReadRecord(vm.UID())).Slot))
		t.Cleanup(func() { guest.Close() }) // before the slot goes
		rigs, guests = append(rigs, r), append(guests, guest)
	}
	check := func(i int, when string) {
		t.Helper()
		if err := guests[i].Echo("udp", netip.AddrPortFrom(netlab.Echo, 7), 10*time.Second); err != nil {
			t.Errorf("%s %d: %v", when, i, err)
		}
		if err := guests[i].Echo("udp", netip.AddrPortFrom(netlab.Echo, 7001), 100*time.Millisecond); err == nil {
			t.Errorf("%s %d has a way that no rule opens", when, i)
		}
		if got, want := rigs[i].published(rigs[i].named("one")), fmt.Sprintf("tcp 127.0.0.1:%d to 80 of 0", firstPort+i); !slices.Equal(got, []string{want}) {
			t.Errorf("%s %d: published %q, want %q", when, i, got, want)
		}
	}
	for i := range rigs {
		check(i, "at first")
	}
	taken := microvm.Spec{Diskless: true, Network: &microvm.Network{Publish: []microvm.Port{port(fmt.Sprint("127.0.0.1:", firstPort), 80)}}}
	if _, err := rigs[1].runtime.Create(t.Context(), "two", taken); !errors.Is(err, microvm.ErrBusy) {
		t.Errorf("a port of the other's: %v", err)
	}
	if err := rigs[1].named("one").Update(t.Context(), microvm.Change{Publish: &taken.Network.Publish}); !errors.Is(err, microvm.ErrBusy) {
		t.Errorf("a port of the other's by an update: %v", err)
	}
	if got := rigs[1].info(rigs[1].named("one")).Spec.Network.Publish; len(got) != 1 || got[0].Host.Port() != firstPort+1 {
		t.Errorf("an update that failed made it %+v", got)
	}
	check(1, "after an update that failed")
	for _, r := range rigs {
		if err := r.runtime.Close(); err != nil {
			t.Fatal(err)
		}
	}
	rigs[0].flushHost()
	for i, r := range rigs {
		r.reopen()
		if did := r.recovered(false); !slices.Contains(did, "adopted run") {
			t.Errorf("recovering %d did %q", i, did)
		}
	}
	for i := range rigs {
		check(i, "recovered")
	}
	guests[0].Close()
	if purged, err := Purge(t.Context(), rigs[0].options); err != nil || len(purged.Stays) > 0 {
		t.Fatal(purged, err)
	}
	check(1, "after the other's end")
	if has := hasOnHost(t, lab, network.ID(rigs[1].options.StateDir)); has != (onHost{true, true}) {
		t.Errorf("of the one that stays the host has %+v", has)
	}
	ctx := within(t)
	for has := (onHost{true, true}); has != (onHost{}); { // a driver that lives may be making the table again, until it sees that there is no network
		if has = hasOnHost(t, lab, network.ID(rigs[0].options.StateDir)); ctx.Err() != nil {
			t.Fatalf("of the one that is gone the host has %+v", has)
		}
	}
}

// onHost is what a state directory has on the host.
type onHost struct{ table, link bool }

func hasOnHost(t *testing.T, lab *netlab.Lab, id string) (has onHost) {
	t.Helper()
	err := lab.Host.Do(func() error {
		tables, err := exec.CommandContext(t.Context(), "nft", "list", "tables").Output()
		has.table = strings.Contains(string(tables), "microvm-"+id)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	has.link = linksIn(t, lab.Host)["mvm-"+id] != nil
	return has
}
