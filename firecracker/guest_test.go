//go:build linux

package firecracker

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
	"github.com/tangle-network/microvm-runtime/internal/testing/tinyguest"
)

// within bounds what should happen soon; how soon is no matter.
func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func TestRealGuestEnds(t *testing.T) {
	p := ring.Real(t)
	for _, tc := range []struct {
		name   string
		after  tinyguest.After
		reason microvm.Reason
	}{
		{"reset", tinyguest.Reset, microvm.ReasonGuest},
		{"triple fault", tinyguest.Crash, microvm.ReasonGuest},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t, p, false, tinyguest.Program{Text: marker + "\n", After: tc.after})
			vm := r.create("one")
			for range 2 {
				if err := vm.Start(within(t), nil); err != nil && !errors.Is(err, microvm.ErrExited) {
					t.Fatal(err)
				} else if err != nil {
					t.Logf("it ended before its VMM answered: %v", err)
					continue
				}
				exit, err := vm.Wait(within(t))
				if err != nil || exit.Reason != tc.reason || len(exit.Evidence) == 0 {
					t.Errorf("exit %v, evidence %q, %v; want %s", exit, exit.Evidence, err, tc.reason)
				}
				if info := r.info(vm); info.State != microvm.StateStopped || info.Exit == nil {
					t.Errorf("info %+v", info)
				}
			}
		})
	}
}

// TestRealHaltedGuest: it goes on for ever, hears nothing, and is ended by force once its grace is over.
func TestRealHaltedGuest(t *testing.T) {
	r := newRig(t, ring.Real(t), false, tinyguest.Program{Text: marker + "\n", After: tinyguest.Halt})
	vm := r.create("one")
	r.start(vm)
	waiting, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := vm.Wait(waiting); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("wait: %v", err)
	}
	exit, err := vm.Stop(within(t), &microvm.StopOptions{Grace: 100 * time.Millisecond})
	if err != nil || exit.Reason != microvm.ReasonForced {
		t.Errorf("stop: %v, %v; want forced", exit, err)
	}
	r.start(vm)
}

// TestRealConsoleFlood: a guest that never stops writing costs no more than what is kept, and nothing else suffers.
func TestRealConsoleFlood(t *testing.T) {
	r := newRig(t, ring.Real(t), false, tinyguest.Program{Text: strings.Repeat("flood ", 40) + "\n", After: tinyguest.Flood})
	vm := r.create("one")
	r.start(vm)
	reader, err := vm.Console(t.Context(), &microvm.ConsoleOptions{Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	const kept = 1 << 20
	if n, err := io.CopyN(io.Discard, reader, kept/8); err != nil { // package console's tests go beyond what is kept: this guest is slow
		t.Fatalf("the console ends after %d bytes: %v", n, err)
	}
	if err := reader.Close(); err != nil {
		t.Error(err)
	}
	for range 2 { // the second time as another process, which drains in its turn
		if err := errors.Join(vm.Pause(within(t)), vm.Resume(within(t))); err != nil {
			t.Error(err)
		}
		r.reopen()
		if vm, err = r.runtime.VM(t.Context(), "one"); err != nil {
			t.Fatal(err)
		}
	}
	if text := r.console(vm); !strings.Contains(text, "flood flood") || len(text) > kept {
		t.Errorf("%d bytes of console, ending %q", len(text), text[max(0, len(text)-100):])
	}
	if size := sizeOf(t, r.volatile(vm.UID())); size > kept+kept/8 {
		t.Errorf("%d bytes on disk", size)
	}
	exit, err := vm.Stop(within(t), &microvm.StopOptions{Grace: 50 * time.Millisecond})
	if err != nil || exit.Reason != microvm.ReasonForced {
		t.Errorf("stop: %v, %v", exit, err)
	}
}

func (r *rig) console(vm *microvm.VM) string {
	r.t.Helper()
	reader, err := vm.Console(r.t.Context(), nil)
	if err != nil {
		r.t.Fatal(err)
	}
	defer reader.Close()
	text, err := io.ReadAll(reader)
	if err != nil {
		r.t.Fatal(err)
	}
	return string(text)
}

func sizeOf(t *testing.T, dir string) (size int64) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if info, err := os.Lstat(filepath.Join(dir, entry.Name())); err == nil {
			size += info.Size()
		}
	}
	return size
}

// TestRealBadKernel: what can't boot is said by Create, or by Start in the VMM's own words, and leaves nothing.
func TestRealBadKernel(t *testing.T) {
	bothWays(t, ring.Real(t), func(t *testing.T, r *rig) {
		dir := t.TempDir()
		before := r.census()
		for name, want := range map[string]string{"missing": "no such file", "empty": "is empty", "directory": "no regular file"} {
			path := filepath.Join(dir, name)
			switch name {
			case "empty":
				write(t, path, nil)
			case "directory":
				if err := os.Mkdir(path, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			_, err := r.runtime.Create(t.Context(), "one", microvm.Spec{Diskless: true, Kernel: path})
			if !errors.Is(err, microvm.ErrInvalid) || !strings.Contains(err.Error(), "Spec.Kernel") || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %q", name, err, want)
			}
			r.unchanged(before)
		}
		good := tinyguest.Kernel(tinyguest.Program{Text: marker})
		cut := good[:80]
		for name, kernel := range map[string][]byte{"no ELF": []byte("#!/bin/sh\n" + strings.Repeat("x", 1<<16)), "cut short": cut} {
			path := filepath.Join(dir, strings.ReplaceAll(name, " ", "-"))
			write(t, path, kernel)
			vm, err := r.runtime.Create(t.Context(), "one", microvm.Spec{Diskless: true, Kernel: path})
			if err != nil {
				t.Fatal(err)
			}
			made, info := r.census(), r.info(vm)
			err = vm.Start(within(t), nil)
			if !errors.Is(err, microvm.ErrExited) || !strings.Contains(strings.ToLower(err.Error()), "kernel") {
				t.Errorf("%s: %v, want the VMM's own words", name, err)
			}
			r.asBefore(vm, info)
			r.unchanged(made)
			r.destroy(vm)
			r.unchanged(before)
		}
	})
}

func write(t *testing.T, path string, text []byte) {
	t.Helper()
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestRealBrokenConfiguration: the shared files of a run vanish or are spoiled between Create and Start.
func TestRealBrokenConfiguration(t *testing.T) {
	bothWays(t, ring.Real(t), func(t *testing.T, r *rig) {
		vm := r.create("one")
		defer r.destroy(vm)
		before, info := r.census(), r.info(vm)
		config := filepath.Join(r.options.SocketDir, vm.UID(), configPath)
		r.setHook(func(point string) error {
			if point == "start/place:after" {
				return errors.Join(os.Remove(config), os.WriteFile(config, []byte(`{"boot-source": 7`), 0o444))
			}
			return nil
		})
		err := vm.Start(within(t), nil)
		if !errors.Is(err, microvm.ErrExited) || !strings.Contains(err.Error(), "Json") {
			t.Errorf("start: %v, want the VMM's own words on its configuration", err)
		}
		r.setHook(nil)
		r.asBefore(vm, info)
		r.unchanged(before)
		kernel := r.sharedKernel(vm)
		if err := os.Rename(kernel, kernel+".away"); err != nil {
			t.Fatal(err)
		}
		if err := vm.Start(within(t), nil); err == nil || !strings.Contains(strings.ToLower(err.Error()), "no such file") {
			t.Errorf("start without its kernel: %v", err)
		}
		r.asBefore(vm, info)
		if err := os.Rename(kernel+".away", kernel); err != nil {
			t.Fatal(err)
		}
		r.start(vm)
	})
}

// TestRealFrozenVMM: one that hears nothing can be ended, and holds nobody else up.
func TestRealFrozenVMM(t *testing.T) {
	bothWays(t, ring.Real(t), func(t *testing.T, r *rig) {
		vm, other := r.create("one"), r.create("other")
		r.start(vm)
		r.start(other)
		signal(t, r.info(vm).PID, syscall.SIGSTOP)
		pausing, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if err := vm.Pause(pausing); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("pause: %v, want that its deadline is over", err)
		}
		frozen := make(chan error)
		go func() {
			pausing, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			frozen <- vm.Pause(pausing)
		}()
		for _, verb := range []func(context.Context) error{other.Pause, other.Resume} {
			if err := verb(within(t)); err != nil {
				t.Errorf("another machine: %v", err)
			}
		}
		if info := r.listed(vm.UID()); info.State != microvm.StateRunning {
			t.Errorf("state %s", info.State)
		}
		if err := <-frozen; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("pause: %v", err)
		}
		exit, err := vm.Stop(within(t), &microvm.StopOptions{Force: true})
		if err != nil || exit.Reason != microvm.ReasonForced {
			t.Errorf("stop: %v, %v", exit, err)
		}
		r.start(vm)
		signal(t, r.info(vm).PID, syscall.SIGSTOP)
		if exit, err := vm.Stop(within(t), &microvm.StopOptions{Grace: 50 * time.Millisecond}); err != nil || exit.Reason != microvm.ReasonForced {
			t.Errorf("graceful stop: %v, %v", exit, err)
		}
		r.start(vm)
		signal(t, r.info(vm).PID, syscall.SIGSTOP)
		r.destroy(vm)
		if info := r.info(other); info.State != microvm.StateRunning {
			t.Errorf("the other machine: %+v", info)
		}
	})
}
