//go:build linux

package firecracker

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/inventory"
	"github.com/tangle-network/microvm-runtime/internal/setup"
	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
	"github.com/tangle-network/microvm-runtime/internal/testing/tinyguest"
	"github.com/tangle-network/microvm-runtime/internal/unix"
)

var errInjected = errors.New("injected")

// bothWays runs a test bare and jailed, each in a rig of its own.
func bothWays(t *testing.T, p setup.Parts, test func(t *testing.T, r *rig)) {
	for name, bare := range map[string]bool{"bare": true, "jailed": false} {
		t.Run(name, func(t *testing.T) {
			test(t, newRig(t, p, bare, tinyguest.Program{Text: marker + "\n"}))
		})
	}
}

// withDrive is bothWays with a machine that is lent a drive of another user's, so that every step is passed.
func withDrive(t *testing.T, p setup.Parts, test func(t *testing.T, r *rig)) {
	bothWays(t, p, func(t *testing.T, r *rig) {
		r.spec.Drives = []microvm.Drive{{Path: othersDisk(t, "drive")}}
		test(t, r)
	})
}

// newDisk makes a raw disk of nothing where jails can have it.
func newDisk(t *testing.T, name string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// atEach runs a test for every point of a verb.
func atEach(t *testing.T, r *rig, verb string, test func(r *rig, point string)) {
	for _, point := range r.points(verb) {
		t.Run(point, func(t *testing.T) {
			before := r.t
			defer func() { r.setHook(nil); r.with(before) }()
			test(r.with(t), point)
		})
	}
}

func TestRealCreateFailsAtEveryStep(t *testing.T) {
	withDrive(t, ring.Real(t), func(t *testing.T, r *rig) {
		atEach(t, r, "create", func(r *rig, point string) {
			before := r.census()
			r.failAt(point, errInjected)
			if _, err := r.runtime.Create(t.Context(), "one", r.spec); !errors.Is(err, errInjected) {
				t.Fatalf("create: %v, want the injected error", err)
			}
			r.nothingLeft(before)
		})
	})
}

// nothingLeft fails the test unless no machine is known and the host is as before, and a machine can be made.
func (r *rig) nothingLeft(before inventory.Census) {
	r.t.Helper()
	r.setHook(nil)
	infos, err := r.runtime.List(r.t.Context(), nil)
	if err != nil || len(infos) > 0 {
		r.t.Errorf("list: %+v, %v", infos, err)
	}
	r.unchanged(before)
	r.destroy(r.create("one"))
	r.unchanged(before)
}

// TestRealStartFailsAtEveryStep: a machine whose start failed is as it was before, also when it had run before.
func TestRealStartFailsAtEveryStep(t *testing.T) {
	withDrive(t, ring.Real(t), func(t *testing.T, r *rig) {
		atEach(t, r, "start", func(r *rig, point string) {
			vm := r.create("one")
			defer r.destroy(vm)
			for _, from := range []microvm.State{microvm.StateCreated, microvm.StateStopped} {
				before, info := r.census(), r.info(vm)
				if info.State != from {
					r.t.Fatalf("state %s, want %s", info.State, from)
				}
				r.failAt(point, errInjected)
				if err := vm.Start(t.Context(), nil); !errors.Is(err, errInjected) {
					r.t.Errorf("start: %v, want the injected error", err)
				}
				r.setHook(nil)
				r.asBefore(vm, info)
				r.unchanged(before)
				r.start(vm)
				if _, err := vm.Stop(t.Context(), &microvm.StopOptions{Force: true}); err != nil {
					r.t.Error(err)
				}
			}
		})
	})
}

// asBefore fails the test unless the machine's Info is what it was; the time line is the last start's.
func (r *rig) asBefore(vm *microvm.VM, before microvm.Info) {
	r.t.Helper()
	for _, after := range []microvm.Info{r.info(vm), r.listed(vm.UID())} {
		if after.State != before.State || after.PID != 0 || !after.Started.Equal(before.Started) {
			r.t.Errorf("state %s, process %d, started %v, want as before: %s, %v", after.State, after.PID, after.Started, before.State, before.Started)
		}
		if (after.Exit == nil) != (before.Exit == nil) || after.Exit != nil && (after.Exit.Reason != before.Exit.Reason || !after.Exit.Time.Equal(before.Exit.Time)) {
			r.t.Errorf("exit %+v, want as before: %+v", after.Exit, before.Exit)
		}
	}
	if r.lives(vm.UID()) {
		r.t.Error("its VMM lives")
	}
}

func (r *rig) listed(uid string) microvm.Info {
	r.t.Helper()
	infos, err := r.runtime.List(r.t.Context(), nil)
	if err != nil {
		r.t.Fatal(err)
	}
	at := slices.IndexFunc(infos, func(info microvm.Info) bool { return info.UID == uid })
	if at < 0 {
		r.t.Fatalf("%s is not listed", uid)
	}
	return infos[at]
}

// TestRealVMMKilledAtEveryStep: a start whose VMM dies says so.
func TestRealVMMKilledAtEveryStep(t *testing.T) {
	bothWays(t, ring.Real(t), func(t *testing.T, r *rig) {
		spawned := false
		atEach(t, r, "start", func(r *rig, point string) {
			if spawned = spawned || point == "start/spawn:after"; !spawned {
				return
			}
			vm := r.create("one")
			defer r.destroy(vm)
			before, info := r.census(), r.info(vm)
			r.setHook(func(at string) error {
				if at == point {
					killAll(r.t, r.pids(vm.UID()))
				}
				return nil
			})
			err := vm.Start(t.Context(), nil)
			r.setHook(nil)
			switch {
			case err != nil:
				if !errors.Is(err, microvm.ErrExited) || !strings.Contains(err.Error(), "signal 9") {
					r.t.Errorf("start: %v, want that the VMM ended by signal 9", err)
				}
				r.asBefore(vm, info)
				r.unchanged(before)
			case strings.HasPrefix(point, "start/vmm:after") || strings.HasPrefix(point, "start/commit"): // it had started
				exit, err := vm.Wait(t.Context())
				if err != nil || exit.Reason != microvm.ReasonCrashed || exit.Signal != int(syscall.SIGKILL) {
					r.t.Errorf("wait: %v, %v", exit, err)
				}
			default:
				r.t.Error("start knows nothing of its VMM's end")
			}
			r.start(vm)
		})
	})
}

// pids returns the processes of the machine's leaf.
func (r *rig) pids(uid string) []int {
	r.t.Helper()
	leaf, err := r.driver.slice.Leaf(uid)
	if err != nil || leaf == nil {
		r.t.Fatalf("leaf of %s: %v", uid, err)
	}
	defer leaf.Close()
	pids, err := leaf.Procs()
	if err != nil || len(pids) == 0 {
		r.t.Fatalf("processes of %s: %v, %v", uid, pids, err)
	}
	return pids
}

func killAll(t *testing.T, pids []int) {
	t.Helper()
	for _, pid := range pids {
		signal(t, pid, syscall.SIGKILL)
	}
}

func signal(t *testing.T, pid int, signal syscall.Signal) {
	t.Helper()
	fd, err := unix.PidfdOpen(pid)
	if err != nil {
		t.Error(err)
		return
	}
	defer syscall.Close(fd)
	if err := unix.PidfdSendSignal(fd, signal); err != nil {
		t.Error(err)
	}
}

// TestRealContextEndsAtEveryStep: a call either did what it says or left nothing.
func TestRealContextEndsAtEveryStep(t *testing.T) {
	withDrive(t, ring.Real(t), func(t *testing.T, r *rig) {
		before := r.census()
		atEach(t, r, "create", func(r *rig, point string) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			r.cancelAt(point, cancel)
			vm, err := r.runtime.Create(ctx, "one", r.spec)
			if err == nil && strings.HasPrefix(point, "create/commit") { // it was too late
				r.destroy(vm)
			} else if !errors.Is(err, context.Canceled) {
				r.t.Errorf("create: %v, want context.Canceled", err)
			}
			r.nothingLeft(before)
		})
		atEach(t, r, "start", func(r *rig, point string) {
			vm := r.create("one")
			defer r.destroy(vm)
			info, made := r.info(vm), r.census()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			r.cancelAt(point, cancel)
			switch err := vm.Start(ctx, nil); {
			case errors.Is(err, context.Canceled):
				r.asBefore(vm, info)
				r.unchanged(made)
			case err != nil || !strings.HasPrefix(point, "start/commit") && point != "start/vmm:after":
				r.t.Errorf("start: %v, want context.Canceled", err)
			}
			r.setHook(nil)
			r.start(vm)
			if _, err := vm.Stop(t.Context(), &microvm.StopOptions{Force: true}); err != nil {
				r.t.Error(err)
			}
		})
	})
}

func (r *rig) cancelAt(point string, cancel func()) {
	r.setHook(func(at string) error {
		if at == point {
			cancel()
		}
		return nil
	})
}
