//go:build linux

package firecracker

import (
	"testing"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/warmpool"
)

// TestRealPoolOfTwoProcesses: no machine is handed out twice, what waits outlives the processes, is whole, and is the next one's at once.
func TestRealPoolOfTwoProcesses(t *testing.T) {
	holding(t, func(t *testing.T, r *rig) {
		const each = 5
		said := r.together(order{Verb: "take", Name: "a", Snapshot: "one/warm", Start: each}, order{Verb: "take", Name: "b", Snapshot: "one/warm", Start: each})
		r.only(said, "ok")
		infos, err := r.runtime.List(within(t), nil)
		if err != nil {
			t.Fatal(err)
		}
		handed, waiting := 0, 0
		for _, info := range infos {
			switch {
			case info.Held && info.State == microvm.StatePaused:
				waiting++
			case info.State == microvm.StateRunning && info.Spec.Labels[warmpool.Label] == "p":
				handed++
			default:
				t.Errorf("neither waits nor runs: %+v", info)
			}
		}
		if handed != 4*each {
			t.Errorf("%d machines for %d jobs", handed, 4*each)
		}
		pool, err := warmpool.Open(within(t), r.runtime, "p", "one/warm", &warmpool.Options{Size: poolSize})
		if err != nil {
			t.Fatal(err)
		}
		defer pool.Close()
		if ready := pool.Status().Ready; ready < min(waiting, poolSize) || ready > poolSize { // it may have made one by now
			t.Errorf("%d ready, want the %d that wait", ready, waiting)
		}
		if err := pool.Fill(within(t)); err != nil {
			t.Fatal(err)
		}
		vm, _, err := pool.Take(within(t), "job", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.goesOn(vm, "one/warm")
		if err := pool.Drain(within(t)); err != nil {
			t.Fatal(err)
		}
		infos, err = r.runtime.List(within(t), nil)
		if err != nil || len(infos) != handed+1 {
			t.Errorf("%d machines, %v", len(infos), err)
		}
		for _, info := range infos {
			r.destroy(r.named(info.UID))
		}
	})
}
