//go:build linux

package firecracker

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/inventory"
	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
)

// raceBudget bounds how long each race goes on.
const raceBudget = 4 * time.Second

// together runs orders at once, each in a process of its own, and returns what each said, one word a call.
func (r *rig) together(orders ...order) [][]string {
	r.t.Helper()
	said := make([][]string, len(orders))
	var all sync.WaitGroup
	for i, o := range orders {
		o.Options, o.Spec = childOptionsOf(r.options), tiny
		all.Go(func() {
			out, err := child(r.t.Context(), o).CombinedOutput()
			if err != nil {
				r.t.Errorf("%s: %v\n%s", o.Verb, err, out)
			}
			said[i] = strings.Split(strings.TrimSpace(string(out)), "\n")
		})
	}
	all.Wait()
	return said
}

// TestRealTwoProcessesCreate: of two that create a machine of one name exactly one does.
func TestRealTwoProcessesCreate(t *testing.T) {
	bothWays(t, ring.Real(t), func(t *testing.T, r *rig) {
		before := r.census()
		for begin, n := time.Now(), 0; n < 5 || n < 20 && time.Since(begin) < raceBudget; n++ {
			said := r.together(order{Verb: "create", Name: "one"}, order{Verb: "create", Name: "one"}, order{Verb: "create", Name: fmt.Sprintf("other-%d", n)})
			first, second := said[0][0], said[1][0]
			if !(first == "ok" && second == "exists") && !(first == "exists" && second == "ok") || said[2][0] != "ok" {
				t.Errorf("create: %q", said)
			}
			infos, err := r.runtime.List(t.Context(), nil)
			if err != nil || len(infos) != 2 {
				t.Fatalf("list: %+v, %v", infos, err)
			}
			for _, info := range infos {
				vm, err := r.runtime.VM(t.Context(), info.UID)
				if err != nil {
					t.Fatal(err)
				}
				r.destroy(vm)
			}
		}
		r.unchanged(before)
	})
}

// TestRealTwoProcessesStartAndStop: each call does what it says or finds that another was faster, and what is on record is true afterwards.
func TestRealTwoProcessesStartAndStop(t *testing.T) {
	bothWays(t, ring.Real(t), func(t *testing.T, r *rig) {
		vm := r.create("one")
		defer r.destroy(vm)
		before := r.census()
		for begin, n := time.Now(), 0; n < 2 || n < 10 && time.Since(begin) < raceBudget; n++ {
			said := r.together(order{Verb: "start", Name: "one", Times: 5}, order{Verb: "stop", Name: "one", Times: 5}, order{Verb: "start", Name: "one", Times: 5},
				order{Verb: "pause", Name: "one", Times: 5}, order{Verb: "resume", Name: "one", Times: 5})
			r.only(said, "ok", "state", "exited")
			info := r.info(vm)
			if running := info.State == microvm.StateRunning || info.State == microvm.StatePaused; running != r.lives(vm.UID()) {
				t.Errorf("state %s, and a VMM: %t", info.State, !running)
			}
			if info.State == microvm.StatePaused {
				if err := vm.Resume(t.Context()); err != nil {
					t.Error(err)
				}
			}
			r.start(vm)
			if _, err := vm.Stop(t.Context(), &microvm.StopOptions{Force: true}); err != nil {
				t.Error(err)
			}
		}
		changes := inventory.Diff(before, r.census())
		for _, item := range changes.Added {
			if name := filepath.Base(item.Name); name != "started" && name != "exit.json" {
				t.Errorf("left: %+v", item)
			}
		}
	})
}

// TestRealTwoProcessesDestroy: whoever comes too late finds nothing, and nothing is left.
func TestRealTwoProcessesDestroy(t *testing.T) {
	bothWays(t, ring.Real(t), func(t *testing.T, r *rig) {
		before := r.census()
		for begin, n := time.Now(), 0; n < 3 || n < 20 && time.Since(begin) < raceBudget; n++ {
			r.start(r.create("one"))
			said := r.together(order{Verb: "destroy", Name: "one"}, order{Verb: "destroy", Name: "one"}, order{Verb: "start", Name: "one", Times: 3}, order{Verb: "stop", Name: "one", Times: 3})
			r.only(said, "ok", "not found", "state", "exited")
			if said[0][0] != "ok" && said[1][0] != "ok" {
				t.Errorf("destroy: %q", said)
			}
			infos, err := r.runtime.List(t.Context(), nil)
			if err != nil || len(infos) > 0 {
				t.Errorf("list: %+v, %v", infos, err)
			}
			r.unchanged(before)
		}
	})
}

// only fails the test when a call said something else.
func (r *rig) only(said [][]string, words ...string) {
	r.t.Helper()
	for _, word := range slices.Concat(said...) {
		if !slices.Contains(words, word) {
			r.t.Errorf("said %q, want one of %q", word, words)
		}
	}
}
