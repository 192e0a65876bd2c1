//go:build linux

package firecracker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
)

// stocking runs a test bare and jailed with a driver that has n VMMs wait, and a snapshot one/warm of a machine that is gone.
func stocking(t *testing.T, n int, test func(t *testing.T, r *rig)) {
	counting(t, ring.Real(t), func(t *testing.T, r *rig) {
		vm := r.create("one")
		r.start(vm)
		r.letters(vm, 3)
		r.snapshot(vm, "warm", nil)
		r.destroy(vm)
		r.options.WaitingVMMs = n
		r.reopen()
		test(t, r)
	})
}

// waiting returns the pids of the VMMs that wait, sorted, once nothing more is to be made.
func (r *rig) waiting() (pids []int) {
	r.t.Helper()
	for begin := time.Now(); ; time.Sleep(2 * time.Millisecond) {
		s := &r.driver.stock
		s.mu.Lock()
		idle := !s.filling
		pids = nil
		for _, w := range slices.Concat(slices.Collect(maps.Values(s.waiting))...) {
			pids = append(pids, w.boot.process.Identity().PID)
		}
		s.mu.Unlock()
		if idle {
			slices.Sort(pids)
			return pids
		}
		if time.Since(begin) > time.Minute {
			r.t.Fatalf("the stock is not full after a minute: %v", pids)
		}
	}
}

// TestRealWaitingVMMs: a restore takes a VMM that waits, which is no machine before, and another takes its place.
func TestRealWaitingVMMs(t *testing.T) {
	stocking(t, 2, func(t *testing.T, r *rig) {
		r.options.Limits.VMs = 2
		r.reopen()
		r.destroy(r.create("other")) // which makes the file of the limits' lock
		before := r.census()
		first := r.restore("one/warm", "first", nil)
		waiting := r.waiting()
		if len(waiting) != 2 {
			t.Fatalf("%d VMMs wait, want 2", len(waiting))
		}
		if infos, err := r.runtime.List(within(t), nil); err != nil || len(infos) != 1 {
			t.Errorf("list %+v, %v: want one machine", infos, err)
		}
		if report, err := r.runtime.Recover(within(t), nil); err != nil || len(report) > 1 {
			t.Errorf("recover: %+v, %v", report, err)
		}
		second := r.restore("one/warm", "second", &microvm.RestoreOptions{Labels: map[string]string{"a": "b"}})
		info := r.info(second)
		if !slices.Contains(waiting, info.PID) {
			t.Errorf("VMM %d is none of %v, which waited", info.PID, waiting)
		}
		if info.Spec.Labels["a"] != "b" || info.State != microvm.StateRunning || info.Started.Before(r.info(first).Started) {
			t.Errorf("it is %+v", info)
		}
		r.goesOn(second, "one/warm")
		if _, _, err := r.runtime.Restore(within(t), "one/warm", "third", nil); !errors.Is(err, microvm.ErrExhausted) {
			t.Errorf("beyond the limit: %v, want ErrExhausted", err)
		}
		if now := r.waiting(); len(now) != 2 || slices.Equal(now, waiting) {
			t.Errorf("then %v wait, before %v", now, waiting)
		}
		r.destroy(first)
		r.destroy(second)
		r.options.WaitingVMMs, r.options.Limits.VMs = 0, 0
		r.reopen()
		r.unchanged(before)
	})
}

// TestRealWaitingVMMDies: a restore does without it.
func TestRealWaitingVMMDies(t *testing.T) {
	stocking(t, 1, func(t *testing.T, r *rig) {
		r.destroy(r.restore("one/warm", "first", nil))
		dead := r.waiting()
		killAll(t, dead)
		second := r.restore("one/warm", "second", nil)
		if info := r.info(second); info.State != microvm.StateRunning || slices.Contains(dead, info.PID) {
			t.Errorf("it is %s, VMM %d; %v was killed", info.State, info.PID, dead)
		}
		r.goesOn(second, "one/warm")
		r.destroy(second)
	})
}

// TestRealWaitingForEachBackend: a restore whose memory comes from elsewhere than is usual finds a VMM of its own that waits, and leaves the others.
func TestRealWaitingForEachBackend(t *testing.T) {
	stocking(t, 1, func(t *testing.T, r *rig) {
		for _, backend := range []microvm.MemoryBackend{microvm.MemoryUFFD, microvm.MemoryFile} {
			r.destroy(r.restore("one/warm", "first", &microvm.RestoreOptions{Backend: backend}))
		}
		waiting := r.waiting()
		if len(waiting) != 2 {
			t.Fatalf("%v wait, want one for each backend", waiting)
		}
		for name, backend := range map[string]microvm.MemoryBackend{"paged": microvm.MemoryUFFD, "mapped": microvm.MemoryFile, "usual": ""} {
			had := r.waiting()
			vm := r.restore("one/warm", name, &microvm.RestoreOptions{Backend: backend})
			if info := r.info(vm); !slices.Contains(had, info.PID) {
				t.Errorf("%s: VMM %d is none of %v, which waited", name, info.PID, had)
			}
			if run := *must(r.driver.state.ReadRun(vm.UID())); run.Pager != (backend == microvm.MemoryUFFD) {
				t.Errorf("%s: a helper serves its memory: %t", name, run.Pager)
			}
			r.goesOn(vm, "one/warm")
			r.destroy(vm)
		}
		if now := r.waiting(); len(now) != 2 {
			t.Errorf("%v wait", now)
		}
		if err := r.runtime.DeleteSnapshot(within(t), "one/warm"); err != nil {
			t.Error(err)
		}
		if now := r.waiting(); len(now) > 0 {
			t.Errorf("%v wait for a snapshot that is gone", now)
		}
	})
}

// TestRealWaitingForDeletedSnapshot: what waits for a snapshot keeps nobody from deleting it, and goes with it.
func TestRealWaitingForDeletedSnapshot(t *testing.T) {
	stocking(t, 2, func(t *testing.T, r *rig) {
		source := r.create("source")
		r.start(source)
		before := r.census()
		r.snapshot(source, "warm", nil)
		r.destroy(r.restore("source/warm", "first", nil)) // some are being made now
		if err := r.runtime.DeleteSnapshot(within(t), "source/warm"); err != nil {
			t.Fatal(err)
		}
		if left := r.waiting(); len(left) > 0 {
			t.Errorf("%v wait for a snapshot that is gone", left)
		}
		r.unchanged(before)
		r.destroy(source)
	})
}

// TestRealDeleteRefusedWithStock: what waits for a snapshot stays where that can't be deleted, and who would delete it waits for who makes one no longer than its context lives.
func TestRealDeleteRefusedWithStock(t *testing.T) {
	stocking(t, 1, func(t *testing.T, r *rig) {
		first := r.restore("one/warm", "first", nil)
		waiting := r.waiting()
		if err := r.runtime.DeleteSnapshot(within(t), "one/warm"); !errors.Is(err, microvm.ErrBusy) {
			t.Fatalf("deleted while a machine runs from it: %v", err)
		}
		if now := r.waiting(); len(now) != 1 || !slices.Equal(now, waiting) {
			t.Errorf("%v wait, before the refusal %v", now, waiting)
		}
		second := r.restore("one/warm", "second", nil)
		if info := r.info(second); !slices.Contains(waiting, info.PID) {
			t.Errorf("VMM %d is none of %v, which waited", info.PID, waiting)
		}
		r.waiting()
		r.destroy(first)

		ctx, cancel := context.WithCancel(t.Context())
		makes, goOn := make(chan struct{}), make(chan struct{})
		restores := 0
		r.setHook(func(point string) error {
			if point == "restore/record:before" {
				if restores++; restores == 2 { // the first is of the restore
					close(makes)
					<-goOn
				}
			}
			return nil
		})
		killAll(t, r.waiting())
		third := r.restore("one/warm", "third", nil)
		deleted := make(chan error, 1)
		<-makes
		r.destroy(second)
		r.destroy(third)
		go func() { deleted <- r.runtime.DeleteSnapshot(ctx, "one/warm") }()
		cancel()
		select {
		case err := <-deleted:
			if err == nil {
				t.Error("it is deleted while a VMM is made for it")
			}
		case <-time.After(20 * time.Second):
			t.Error("a delete waits longer than its context lives")
		}
		close(goOn)
		if now := r.waiting(); len(now) != 1 {
			t.Errorf("%v wait", now)
		}
		if err := r.runtime.DeleteSnapshot(within(t), "one/warm"); err != nil {
			t.Error(err)
		}
		if now := r.waiting(); len(now) > 0 {
			t.Errorf("%v wait for a snapshot that is gone", now)
		}
	})
}

// TestRealRestoreFromStockFailsAtEveryStep: nothing is left of the machine, nor of the VMM that waited.
func TestRealRestoreFromStockFailsAtEveryStep(t *testing.T) {
	stocking(t, 1, func(t *testing.T, r *rig) {
		for _, point := range []string{"restore/revise:before", "restore/revise:after", "restore/name:after", "load/vmm:before", "load/vmm:after", "load/commit:after", "restore/load:after", "restore/commit:before", "restore/commit:after"} {
			r.destroy(r.restore("one/warm", "first", nil))
			waiting := r.waiting()
			r.failAt(point, errInjected)
			if _, _, err := r.runtime.Restore(within(t), "one/warm", "two", nil); !errors.Is(err, errInjected) {
				t.Errorf("%s: %v, want the injected error", point, err)
			}
			r.setHook(nil)
			if now := r.waiting(); slices.Equal(now, waiting) {
				t.Errorf("%s: %v still waits", point, waiting)
			}
			if infos, err := r.runtime.List(within(t), nil); err != nil || len(infos) > 0 {
				t.Errorf("%s: list %+v, %v", point, infos, err)
			}
		}
	})
}

// TestRealDriverKilledWithStock: what waited for a process that was killed is a create that was interrupted.
func TestRealDriverKilledWithStock(t *testing.T) {
	stocking(t, 2, func(t *testing.T, r *rig) {
		before := r.census()
		for _, point := range []string{"restore/revise:before", "restore/revise:after", "restore/name:after", "load/vmm:after", "restore/commit:before"} {
			r.die(order{Options: childOptionsOf(r.options), Verb: "restore and destroy", Name: "two", Snapshot: "one/warm", KillAt: point, Times: 1000})
			r.reopen()
			if report, err := r.runtime.Recover(within(t), nil); err != nil || len(report.Failed()) > 0 || len(report) < 1 {
				t.Errorf("%s: recover: %v, %+v", point, err, report)
			}
			if infos, err := r.runtime.List(within(t), nil); err != nil || len(infos) > 0 {
				t.Errorf("%s: list %+v, %v", point, infos, err)
			}
			r.unchanged(before)
		}
	})
}

// TestRealPurgeWithStock: who uninstalls is told which process has VMMs wait, instead of waiting for its end.
func TestRealPurgeWithStock(t *testing.T) {
	stocking(t, 1, func(t *testing.T, r *rig) {
		r.destroy(r.restore("one/warm", "first", nil))
		r.waiting()
		_, err := Purge(within(t), r.options)
		if !errors.Is(err, microvm.ErrBusy) || !strings.Contains(fmt.Sprint(err), fmt.Sprint("process ", os.Getpid())) {
			t.Errorf("purge while a VMM waits: %v, want ErrBusy and the process", err)
		}
		r.goesOn(r.restore("one/warm", "second", nil), "one/warm")
		r.gone()
	})
}
