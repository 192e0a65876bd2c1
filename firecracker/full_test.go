//go:build linux

package firecracker

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
	"github.com/tangle-network/microvm-runtime/internal/testing/tinyguest"
)

// smallDisk puts what a rig keeps at dir on a file system of a few MiB. fill leaves no byte of it, free gives them back.
func smallDisk(t *testing.T, dir string) (fill, free func()) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("microvm-test", dir, "tmpfs", 0, "size=4m,mode=0700"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	ballast := filepath.Join(dir, "ballast")
	fill = func() {
		t.Helper()
		f, err := os.OpenFile(ballast, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for size := 1 << 20; size > 0; {
			if _, err := f.Write(make([]byte, size)); errors.Is(err, syscall.ENOSPC) {
				size /= 2
			} else if err != nil {
				t.Fatal(err)
			}
		}
	}
	free = func() {
		t.Helper()
		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
	}
	return fill, free
}

// fullRig is a rig one of whose directories is on a small disk.
func fullRig(t *testing.T, bare bool, which func(*Options) *string) (r *rig, fill, free func()) {
	t.Helper()
	p := ring.Real(t)
	base := testOptions(t, p, bare)
	dir := *which(&base)
	fill, free = smallDisk(t, dir)
	t.Cleanup(func() { // before the file system goes, which holds what Purge is to find
		if purged, err := Purge(context.Background(), base); err != nil || len(purged.Stays) != 1 || purged.Stays[0] != dir {
			t.Errorf("purge: %v, and %q stays; want the mount point %s", err, purged.Stays, dir)
		}
	})
	base.Kernel = kernelOf(t, tinyguest.Program{Text: marker + "\n"})
	r = &rig{t: t, options: base, spec: tiny}
	r.reopen()
	t.Cleanup(func() { r.runtime.Close() })
	return r, fill, free
}

func stateDir(o *Options) *string  { return &o.StateDir }
func socketDir(o *Options) *string { return &o.SocketDir }

// TestRealFullDisk: create and start say what is lacking and leave nothing; what is there can be stopped and destroyed; with space again all works.
func TestRealFullDisk(t *testing.T) {
	for name, which := range map[string]func(*Options) *string{"state": stateDir, "sockets": socketDir} {
		t.Run(name, func(t *testing.T) {
			bareAndJailed(t, func(t *testing.T, bare bool) {
				r, fill, free := fullRig(t, bare, which)
				r.destroy(r.create("first")) // the store has the kernel
				runs, made := r.create("runs"), r.create("made")
				r.start(runs)
				fill()
				before, info := r.census(), r.info(made)
				if _, err := r.runtime.Create(t.Context(), "one", tiny); name == "state" && !errors.Is(err, syscall.ENOSPC) {
					t.Errorf("create: %v, want ENOSPC", err)
				} else if name != "state" && err != nil && (bare || !errors.Is(err, syscall.ENOSPC)) { // a jailed one's slot may have been made before
					t.Errorf("create: %v", err)
				} else if err == nil {
					vm := must(r.runtime.VM(t.Context(), "one"))
					r.destroy(*vm)
				}
				r.unchanged(before)
				if err := made.Start(within(t), nil); err != nil && !errors.Is(err, syscall.ENOSPC) {
					t.Errorf("start: %v, want ENOSPC", err)
				} else if err == nil && (name == "sockets" || !bare) {
					t.Error("start works without a byte of space")
				} else if err != nil {
					r.asBefore(made, info)
					r.unchanged(before)
				}
				if infos, err := r.runtime.List(t.Context(), nil); err != nil || len(infos) != 2 {
					t.Errorf("list: %+v, %v", infos, err)
				}
				r.destroy(made)
				r.destroy(runs)
				free()
				again := r.create("again")
				r.start(again)
				if _, err := again.Stop(within(t), &microvm.StopOptions{Force: true}); err != nil {
					t.Error(err)
				}
				r.destroy(again)
			})
		})
	}
}

func bareAndJailed(t *testing.T, test func(t *testing.T, bare bool)) {
	for name, bare := range map[string]bool{"bare": true, "jailed": false} {
		t.Run(name, func(t *testing.T) { test(t, bare) })
	}
}

// TestRealStopOnFullDisk: a machine can be stopped without space for its end, and says it later.
func TestRealStopOnFullDisk(t *testing.T) {
	for name, which := range map[string]func(*Options) *string{"state": stateDir, "sockets": socketDir} {
		t.Run(name, func(t *testing.T) {
			r, fill, free := fullRig(t, false, which)
			vm := r.create("one")
			r.start(vm)
			fill()
			exit, err := vm.Stop(within(t), &microvm.StopOptions{Force: true})
			if err != nil && !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("stop: %v, %v", exit, err)
			}
			t.Logf("stop: %v, %v", exit, err)
			free()
			if exit, err = vm.Stop(within(t), &microvm.StopOptions{Force: true}); err != nil || exit.Reason != microvm.ReasonForced {
				t.Errorf("stop: %v, %v", exit, err)
			}
			if info := r.info(vm); info.State != microvm.StateStopped {
				t.Errorf("state %s", info.State)
			}
			r.start(vm)
			r.destroy(vm)
		})
	}
}

// TestRealListOfOneThatCantBeSettled: that the end of one machine can't be recorded is told there, and nobody else's list suffers; once it can be it is.
func TestRealListOfOneThatCantBeSettled(t *testing.T) {
	for _, tc := range []struct {
		name       string
		bare, full bool
	}{{"full", true, true}, {"unwritable bare", true, false}, {"unwritable jailed", false, false}} { // a jail gives space back
		t.Run(tc.name, func(t *testing.T) {
			var r *rig
			var block, unblock func()
			if tc.full {
				r, block, unblock = fullRig(t, tc.bare, stateDir)
			} else {
				r = newRig(t, ring.Real(t), tc.bare, tinyguest.Program{})
			}
			vm, other := r.create("one"), r.create("other")
			r.start(vm)
			r.start(other)
			if !tc.full {
				path := filepath.Join(r.driver.state.Machine(vm.UID()), "exit.json.new")
				block = func() { os.Mkdir(path, 0o700) }
				unblock = func() { os.Remove(path) }
			}
			block()
			r.killWatched(vm)
			for range 2 {
				if info := r.listed(vm.UID()); info.State != microvm.StateStopped || info.PID != 0 || !strings.Contains(info.Problem, "can't be settled") {
					t.Errorf("it has ended, and is %s, process %d: %s", info.State, info.PID, info.Problem)
				}
				if info := r.listed(other.UID()); info.State != microvm.StateRunning || info.Problem != "" {
					t.Errorf("the other is %s: %s", info.State, info.Problem)
				}
			}
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if infos, err := r.runtime.List(ctx, nil); !errors.Is(err, context.Canceled) {
				t.Errorf("list without a context: %v, %v", infos, err)
			}
			unblock()
			if info := r.listed(vm.UID()); info.State != microvm.StateStopped || info.Problem != "" || info.Exit == nil || info.Exit.Reason != microvm.ReasonCrashed {
				t.Errorf("with space it is %s, %+v: %s", info.State, info.Exit, info.Problem)
			}
			r.destroy(vm)
			r.destroy(other)
		})
	}
}

// killWatched kills a machine's VMM that the rig's driver watches, and waits until that knows it.
func (r *rig) killWatched(vm *microvm.VM) {
	r.t.Helper()
	r.driver.mu.Lock()
	w := r.driver.watched[vm.UID()]
	r.driver.mu.Unlock()
	if err := w.process.Kill(); err != nil {
		r.t.Fatal(err)
	}
	<-w.process.Done()
}

// TestRealNoDescriptors: a process without descriptors says so, leaves nothing, and harms no machine.
func TestRealNoDescriptors(t *testing.T) {
	r := newRig(t, ring.Real(t), false, tinyguest.Program{Text: marker + "\n"}) // bare the VMM would have none either
	vm := r.create("one")
	defer r.destroy(vm)
	runs := r.create("runs")
	defer r.destroy(runs)
	r.start(runs)
	refused, worked := 0, 0
	for files := uint64(14); files < 80; files++ { // with fewer no runtime opens
		said := r.together(order{Verb: "start", Name: "one", Files: files})[0][0]
		switch {
		case said == "ok":
			worked++
			if _, err := vm.Stop(within(t), &microvm.StopOptions{Force: true}); err != nil {
				t.Error(err)
			}
		case said == "descriptors":
			refused++
			if r.lives(vm.UID()) || r.info(vm).State == microvm.StateRunning {
				t.Errorf("with %d descriptors: %s, and it runs", files, said)
			}
		default:
			t.Errorf("with %d descriptors: %s", files, said)
		}
		if worked > 2 {
			break
		}
	}
	if refused == 0 || worked == 0 {
		t.Errorf("%d were refused, %d worked", refused, worked)
	}
	if info := r.info(runs); info.State != microvm.StateRunning {
		t.Errorf("the machine that ran: %+v", info)
	}
}
