//go:build linux

package firecracker

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
	"github.com/tangle-network/microvm-runtime/internal/unix"
)

// TestRealLostRun: when the socket directory was emptied while a machine ran, nobody says that the host was rebooted. A VMM that runs still is not started once more, and Destroy ends it; one that has
// ended is unknown, and its machine starts.
func TestRealLostRun(t *testing.T) {
	bothWays(t, ring.Real(t), func(t *testing.T, r *rig) {
		before := r.census()
		vm := r.create("one")
		lose := func() {
			t.Helper()
			r.runtime.Close()
			if err := os.RemoveAll(r.volatile(vm.UID())); err != nil {
				t.Fatal(err)
			}
			r.reopen()
			vm = *must(r.runtime.VM(t.Context(), "one"))
		}
		r.start(vm)
		pids := r.pids(vm.UID())
		r.runtime.Close()
		endAll(t, pids)
		lose()
		info := r.info(vm)
		if info.State != microvm.StateStopped || info.Exit == nil || info.Exit.Reason != microvm.ReasonUnknown || !strings.Contains(strings.Join(info.Exit.Evidence, "; "), r.volatile(vm.UID())) {
			t.Errorf("it ended, and is %s, %+v", info.State, info.Exit)
		}
		r.start(vm)
		pids = r.pids(vm.UID())
		lose()
		if info := r.listed(vm.UID()); info.State != microvm.StateDamaged || !strings.Contains(info.Problem, r.volatile(vm.UID())) {
			t.Errorf("it runs, and is %s: %s", info.State, info.Problem)
		}
		if err := vm.Start(t.Context(), nil); !errors.Is(err, microvm.ErrBusy) {
			t.Errorf("start: %v, want ErrBusy", err)
		}
		if now := r.pids(vm.UID()); !slices.Equal(now, pids) {
			t.Errorf("processes %v, were %v", now, pids)
		}
		r.driver.slice = nil // as on a host without cgroup v2, where no leaf holds it
		r.destroy(vm)
		if r.lives(vm.UID()) {
			t.Error("its VMM lives")
		}
		r.reopen()
		if err := r.driver.endLeaf(vm.UID()); err != nil {
			t.Error(err)
		}
		r.unchanged(before)
	})
}

// endAll kills processes and waits for their end.
func endAll(t *testing.T, pids []int) {
	t.Helper()
	for _, pid := range pids {
		fd, err := unix.PidfdOpen(pid)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.PidfdSendSignal(fd, syscall.SIGKILL); err != nil {
			t.Error(err)
		} else if _, err := unix.PidfdPoll(fd, -1); err != nil {
			t.Error(err)
		}
		unix.PidfdWait(fd) // where it is a child
		syscall.Close(fd)
	}
}

// TestRealReboot: a machine that ran when the host was booted again is stopped by that.
func TestRealReboot(t *testing.T) {
	bothWays(t, ring.Real(t), func(t *testing.T, r *rig) {
		vm := r.create("one")
		r.start(vm)
		pids := r.pids(vm.UID())
		r.runtime.Close()
		endAll(t, pids)
		started := filepath.Join(r.driver.state.Machine(vm.UID()), "started")
		if err := errors.Join(os.RemoveAll(r.volatile(vm.UID())), os.WriteFile(started, []byte(strings.Repeat("0", 36)+"\n"), 0o600)); err != nil {
			t.Fatal(err)
		}
		r.reopen()
		vm = *must(r.runtime.VM(t.Context(), "one"))
		if info := r.info(vm); info.State != microvm.StateStopped || info.Exit == nil || info.Exit.Reason != microvm.ReasonReboot {
			t.Errorf("%s, %+v", info.State, info.Exit)
		}
		r.start(vm)
		r.destroy(vm)
	})
}

// TestRealForeignPIDNamespace: who can't see a machine's VMM, since it is in a container of its own, does not take it for one that has ended.
func TestRealForeignPIDNamespace(t *testing.T) {
	bothWays(t, ring.Real(t), func(t *testing.T, r *rig) {
		vm := r.create("one")
		r.start(vm)
		pid := r.info(vm).PID
		for _, verb := range []string{"start", "stop", "destroy"} {
			cmd := child(t.Context(), order{Options: childOptionsOf(r.options), Verb: verb, Name: "one", OwnProc: true})
			cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS}
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.HasPrefix(string(out), "busy") {
				t.Errorf("%s: %v, %s; want busy", verb, err, out)
			}
		}
		if info := r.info(vm); info.State != microvm.StateRunning || info.PID != pid {
			t.Errorf("it is %s, process %d, was %d", info.State, info.PID, pid)
		}
	})
}
