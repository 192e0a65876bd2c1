//go:build linux

package firecracker

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
)

// standing makes a rig a counting machine, and returns what fails the test unless the machine goes on and is all that there is.
func standing(r *rig) (vm *microvm.VM, goesOn func(vm *microvm.VM)) {
	r.t.Helper()
	vm = r.create("one")
	r.start(vm)
	before := r.census()
	return vm, func(vm *microvm.VM) {
		r.t.Helper()
		if info := r.info(vm); info.State != microvm.StateRunning {
			r.t.Errorf("the machine is %s", info.State)
		}
		r.letters(vm, len(r.said(vm))+2) // it goes on
		if infos, err := r.runtime.Snapshots(within(r.t), nil); err != nil || len(infos) > 0 {
			r.t.Errorf("snapshots %+v, %v", infos, err)
		}
		r.unchanged(before)
	}
}

// said is what a machine has written so far.
func (r *rig) said(vm *microvm.VM) string {
	r.t.Helper()
	reader, err := vm.Console(within(r.t), nil)
	if err != nil {
		r.t.Fatal(err)
	}
	defer reader.Close()
	var text strings.Builder
	for part := make([]byte, 4096); err == nil; {
		var n int
		n, err = reader.Read(part)
		text.Write(part[:n])
	}
	return text.String()
}

// TestRealSnapshotFailsAtEveryStep: the machine runs on, and nothing is left.
func TestRealSnapshotFailsAtEveryStep(t *testing.T) {
	counting(t, ring.Real(t), func(t *testing.T, r *rig) {
		vm, goesOn := standing(r)
		for _, point := range r.points("snapshot") {
			r.failAt(point, errInjected)
			if _, err := vm.Snapshot(within(t), "warm", nil); !errors.Is(err, errInjected) {
				t.Errorf("%s: %v, want the injected error", point, err)
			}
			r.setHook(nil)
			goesOn(vm)
		}
		r.snapshot(vm, "warm", nil)
		r.destroy(r.restore("one/warm", "two", nil))
		r.destroy(vm)
	})
}

// TestRealContextEndsInSnapshot: a snapshot is there, or nothing of it.
func TestRealContextEndsInSnapshot(t *testing.T) {
	counting(t, ring.Real(t), func(t *testing.T, r *rig) {
		vm, goesOn := standing(r)
		for _, point := range r.points("snapshot") {
			ctx, cancel := context.WithCancel(t.Context())
			r.cancelAt(point, cancel)
			_, err := vm.Snapshot(ctx, "warm", nil)
			cancel()
			r.setHook(nil)
			if err == nil { // it was too late
				if err := r.runtime.DeleteSnapshot(within(t), "one/warm"); err != nil {
					t.Errorf("%s: %v", point, err)
				}
			} else if !errors.Is(err, context.Canceled) {
				t.Errorf("%s: %v, want context.Canceled", point, err)
			}
			goesOn(vm)
		}
		r.destroy(vm)
	})
}

// TestRealDriverKilledInSnapshot: what stands goes on with the next process that looks, and the snapshot is there, whole, or not at all.
func TestRealDriverKilledInSnapshot(t *testing.T) {
	counting(t, ring.Real(t), func(t *testing.T, r *rig) {
		vm, goesOn := standing(r)
		for _, point := range r.points("snapshot") {
			r.die(order{Options: childOptionsOf(r.options), Verb: "snapshot", Name: "one", Snapshot: "warm", KillAt: point})
			r.reopen()
			var err error
			if vm, err = r.runtime.VM(within(t), "one"); err != nil {
				t.Fatal(err)
			}
			report, err := r.runtime.Recover(within(t), nil)
			if err != nil || len(report.Failed()) > 0 {
				t.Errorf("%s: recover: %v, %+v", point, err, report)
			}
			err = r.runtime.VerifySnapshot(within(t), "one/warm")
			if point == "snapshot/name:after" {
				if err != nil {
					t.Errorf("%s: %v", point, err)
				}
				r.destroy(r.restore("one/warm", "two", nil))
				err = r.runtime.DeleteSnapshot(within(t), "one/warm")
			} else if errors.Is(err, microvm.ErrNotFound) {
				err = nil
			}
			if err != nil {
				t.Errorf("%s: %v", point, err)
			}
			goesOn(vm)
		}
		r.destroy(vm)
	})
}

// TestRealVMMKilledInSnapshot: the snapshot says so, and the machine's end is told.
func TestRealVMMKilledInSnapshot(t *testing.T) {
	counting(t, ring.Real(t), func(t *testing.T, r *rig) {
		vm, _ := standing(r)
		for _, point := range r.points("snapshot") {
			r.setHook(func(at string) error {
				if at == point {
					killAll(t, r.pids(vm.UID()))
				}
				return nil
			})
			_, err := vm.Snapshot(within(t), "warm", nil)
			r.setHook(nil)
			if exit, waited := vm.Wait(within(t)); waited != nil || exit.Reason != microvm.ReasonCrashed {
				t.Errorf("%s: %+v, %v", point, exit, waited)
			}
			if verified := r.runtime.VerifySnapshot(within(t), "one/warm"); err == nil && verified != nil || err != nil && !errors.Is(verified, microvm.ErrNotFound) {
				t.Errorf("%s: the snapshot %v, then %v", point, err, verified)
			}
			if err == nil {
				if err := r.runtime.DeleteSnapshot(within(t), "one/warm"); err != nil {
					t.Errorf("%s: %v", point, err)
				}
			}
			r.start(vm)
		}
		r.destroy(vm)
	})
}

// TestRealSnapshotOnFullDisk: where there is no space for it the machine runs on, and nothing is left.
func TestRealSnapshotOnFullDisk(t *testing.T) {
	r, _, _ := fullRig(t, true, func(o *Options) *string { return &o.StateDir })
	vm := r.create("one")
	r.start(vm)
	if _, err := vm.Snapshot(within(t), "warm", nil); err == nil || !strings.Contains(err.Error(), "No space left") {
		t.Errorf("snapshot: %v", err)
	}
	if info := r.info(vm); info.State != microvm.StateRunning {
		t.Errorf("the machine is %s", info.State)
	}
	if left, _ := filepath.Glob(filepath.Join(r.options.StateDir, snapshotsDir, "*", "*")); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
	r.destroy(vm)
}

// TestRealRestoreFailsAtEveryStep: nothing is left of the machine.
func TestRealRestoreFailsAtEveryStep(t *testing.T) {
	counting(t, ring.Real(t), func(t *testing.T, r *rig) {
		points := r.points("restore")
		vm := r.create("one")
		r.start(vm)
		r.snapshot(vm, "warm", nil)
		before := r.census()
		for _, point := range append(points, "load/spawn:after", "load/vmm:before", "load/vmm:after", "load/commit:after") {
			r.failAt(point, errInjected)
			if _, _, err := r.runtime.Restore(within(t), "one/warm", "two", nil); !errors.Is(err, errInjected) || strings.Contains(err.Error(), "undo") {
				t.Errorf("%s: %v, want the injected error, and all undone once", point, err)
			}
			r.setHook(nil)
			if infos, err := r.runtime.List(within(t), nil); err != nil || len(infos) != 1 {
				t.Errorf("%s: list %+v, %v", point, infos, err)
			}
			r.unchanged(before)
		}
		r.destroy(vm)
		r.destroy(r.restore("one/warm", "two", nil))
	})
}

// TestRealDriverKilledInRestore: what an interrupted restore left counts as a create that was interrupted.
func TestRealDriverKilledInRestore(t *testing.T) {
	counting(t, ring.Real(t), func(t *testing.T, r *rig) {
		points := r.points("restore")
		vm := r.create("one")
		r.start(vm)
		r.snapshot(vm, "warm", nil)
		r.destroy(vm)
		before := r.census()
		for _, point := range points {
			r.die(order{Options: childOptionsOf(r.options), Verb: "restore", Name: "two", Snapshot: "one/warm", KillAt: point})
			r.reopen()
			report, err := r.runtime.Recover(within(t), nil)
			if err != nil || len(report.Failed()) > 0 {
				t.Errorf("%s: recover: %v, %+v", point, err, report)
			}
			infos, err := r.runtime.List(within(t), nil)
			if point == "restore/commit:after" {
				if err != nil || len(infos) != 1 || infos[0].State != microvm.StateRunning {
					t.Fatalf("%s: list %+v, %v", point, infos, err)
				}
				vm, err := r.runtime.VM(within(t), "two")
				if err != nil {
					t.Fatal(err)
				}
				r.destroy(vm)
			} else if err != nil || len(infos) > 0 {
				t.Errorf("%s: list %+v, %v", point, infos, err)
			}
			r.unchanged(before)
		}
	})
}

// TestRealDriverKilledInFork: Recover takes the snapshot away, unless a machine runs from it.
func TestRealDriverKilledInFork(t *testing.T) {
	counting(t, ring.Real(t), func(t *testing.T, r *rig) {
		points := r.points("restore")
		vm := r.create("one")
		r.start(vm)
		for _, point := range []string{"snapshot/name:after", points[0], points[len(points)/2], "restore/commit:after"} {
			r.die(order{Options: childOptionsOf(r.options), Verb: "fork", Name: "one", Snapshot: "two", KillAt: point})
			r.reopen()
			r.snapshotsLeft(1)
			report, err := r.runtime.Recover(within(t), nil)
			if err != nil || len(report.Failed()) > 0 {
				t.Errorf("%s: recover: %v, %+v", point, err, report)
			}
			if point != "restore/commit:after" {
				r.snapshotsLeft(0)
				continue
			}
			r.snapshotsLeft(1)
			made, err := r.runtime.VM(within(t), "two")
			if err != nil {
				t.Fatal(err)
			}
			r.destroy(made)
			r.snapshotsLeft(0)
		}
		vm, err := r.runtime.VM(within(t), "one")
		if err != nil {
			t.Fatal(err)
		}
		info, err := vm.Snapshot(within(t), "mine", &microvm.SnapshotOptions{Ephemeral: true})
		if err != nil {
			t.Fatal(err)
		}
		if report, err := r.runtime.Recover(within(t), nil); err != nil || len(report.Failed()) > 0 {
			t.Errorf("recover: %v, %+v", err, report)
		}
		r.snapshotsLeft(1) // who made it lives, and may restore it
		r.destroy(r.restore(info.UID, "two", nil))
		r.snapshotsLeft(0)
		r.destroy(vm)
	})
}
