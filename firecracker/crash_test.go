//go:build linux

package firecracker

import (
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"syscall"
	"testing"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
)

// crash lets a process begin a verb and be killed at a point of it.
func (r *rig) crash(verb, name, point string) {
	r.t.Helper()
	r.die(order{Options: childOptionsOf(r.options), Verb: verb, Name: name, Spec: r.spec, KillAt: point})
}

// die lets a process carry out an order that it does not survive.
func (r *rig) die(o order) {
	r.t.Helper()
	cmd := child(r.t.Context(), o)
	out, err := cmd.CombinedOutput()
	exit := (*exec.ExitError)(nil)
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		r.t.Fatalf("the child did not die at %s: %v\n%s", o.KillAt, err, out)
	}
}

// TestRealDriverKilledInCreate: what an interrupted create left is listed, and Destroy takes it away.
func TestRealDriverKilledInCreate(t *testing.T) {
	withDrive(t, ring.Real(t), func(t *testing.T, r *rig) {
		atEach(t, r, "create", func(r *rig, point string) {
			before := r.census()
			r.crash("create", "one", point)
			r.reopen()
			infos, err := r.runtime.List(t.Context(), nil)
			if err != nil || len(infos) != 1 {
				r.t.Fatalf("list: %+v, %v", infos, err)
			}
			want := microvm.StateCreating
			if point == "create/commit:after" {
				want = microvm.StateCreated
			}
			if infos[0].State != want {
				r.t.Errorf("state %s, want %s", infos[0].State, want)
			}
			vm, err := r.runtime.VM(t.Context(), infos[0].UID)
			if err != nil {
				r.t.Fatal(err)
			}
			if err := vm.Start(t.Context(), nil); want == microvm.StateCreating && err == nil {
				r.t.Error("half a machine was started")
			}
			r.destroy(vm)
			r.nothingLeft(before)
		})
	})
}

// TestRealDriverKilledInStart: whatever the interrupted start left, the list is true, and the machine can be started and destroyed.
func TestRealDriverKilledInStart(t *testing.T) {
	withDrive(t, ring.Real(t), func(t *testing.T, r *rig) {
		atEach(t, r, "start", func(r *rig, point string) {
			before := r.census()
			for _, again := range []bool{true, false} {
				name := fmt.Sprintf("one-%t", again)
				r.create(name)
				r.crash("start", name, point)
				r.reopen()
				vm, err := r.runtime.VM(t.Context(), name)
				if err != nil {
					r.t.Fatal(err)
				}
				info := r.listed(vm.UID())
				want := microvm.StateCreated
				if point == "start/commit:after" {
					want = microvm.StateRunning
				}
				if info.State != want || (info.PID != 0) != (want == microvm.StateRunning) {
					r.t.Errorf("state %s, process %d, want %s", info.State, info.PID, want)
				}
				if again {
					r.start(vm)
					if info := r.info(vm); info.State != microvm.StateRunning || len(r.pids(vm.UID())) != 1 {
						r.t.Errorf("state %s, processes %v", info.State, r.pids(vm.UID()))
					}
				}
				r.destroy(vm)
				if r.lives(vm.UID()) {
					r.t.Error("its VMM lives")
				}
				r.unchanged(before)
			}
		})
	})
}

// TestRealDriverKilledInDestroy: Destroy is finished by the next.
func TestRealDriverKilledInDestroy(t *testing.T) {
	withDrive(t, ring.Real(t), func(t *testing.T, r *rig) {
		atEach(t, r, "destroy", func(r *rig, point string) {
			before := r.census()
			r.start(r.create("one"))
			r.crash("destroy", "one", point)
			r.reopen()
			infos, err := r.runtime.List(t.Context(), nil)
			if err != nil {
				r.t.Fatal(err)
			}
			if point == "destroy/remove:after" {
				if len(infos) > 0 {
					r.t.Errorf("list: %+v", infos)
				}
			} else if len(infos) != 1 || infos[0].State != microvm.StateDestroying && point != "destroy/record:before" {
				r.t.Errorf("list: %+v, want a machine that is being destroyed", infos)
			}
			for _, info := range infos {
				vm, err := r.runtime.VM(t.Context(), info.UID)
				if err != nil {
					r.t.Fatal(err)
				}
				r.destroy(vm)
			}
			r.nothingLeft(before)
		})
	})
}

// TestRealDriverKilledWithoutCgroup: where no leaf holds it, a VMM that was just born is found all the same.
func TestRealDriverKilledWithoutCgroup(t *testing.T) {
	bothWays(t, ring.Real(t), func(t *testing.T, r *rig) {
		r.driver.slice = nil
		points := r.points("start")
		for _, point := range points[slices.Index(points, "start/spawn:after"):] {
			vm := r.create("one")
			cmd := child(t.Context(), order{Options: childOptionsOf(r.options), Verb: "start", Name: "one", KillAt: point, NoCgroup: true})
			if out, err := cmd.CombinedOutput(); err == nil {
				t.Errorf("the child did not die at %s: %s", point, out)
			}
			if !r.lives(vm.UID()) {
				t.Errorf("%s: no VMM", point)
			}
			r.start(vm)
			if info := r.info(vm); info.State != microvm.StateRunning {
				t.Errorf("%s: state %s", point, info.State)
			}
			r.destroy(vm)
			if r.lives(vm.UID()) {
				t.Errorf("%s: its VMM lives", point)
			}
		}
	})
}
