//go:build linux

package firecracker

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/testing/fakevmm"
	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
)

// fakeBinary is a fake of a version.
func fakeBinary(t *testing.T, version string) string {
	t.Helper()
	path, err := fakevmm.Install(t.TempDir(), fakevmm.Faults{Version: version})
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// fakeRig is a rig of bare machines on fakes, which remember what pages are written: how a VMM is told to depends on its version.
func fakeRig(t *testing.T, binary string, others ...string) *rig {
	t.Helper()
	r := &rig{t: t, options: fakeOptions(t, fakevmm.Faults{}), spec: microvm.Spec{Diskless: true, TrackDirty: true}}
	r.options.Firecracker, r.options.Binaries = binary, others
	r.reopen()
	t.Cleanup(func() { r.runtime.Close() })
	return r
}

// on reopens the rig's state with other binaries.
func (r *rig) on(binary string, others ...string) {
	r.t.Helper()
	r.options.Firecracker, r.options.Binaries = binary, others
	r.reopen()
}

// runsAs returns the path by which the machine's VMM was executed.
func (r *rig) runsAs(vm *microvm.VM) string {
	r.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", r.info(vm).PID))
	if err != nil {
		r.t.Fatal(err)
	}
	program, _, _ := bytes.Cut(text, []byte{0})
	return string(program)
}

// A snapshot is restored by the version that made it, wherever among the binaries that is, and what is restored is on that version until it is stopped. What boots, boots on the default.
func TestSnapshotIsRestoredByItsVersion(t *testing.T) {
	old, other := fakeBinary(t, "1.12.1"), fakeBinary(t, "1.13.0")
	r := fakeRig(t, other)
	r.start(r.create("source"))
	if info := r.snapshot(r.named("source"), "warm", nil); info.Firecracker != "1.13.0" {
		t.Fatalf("made by %s", info.Firecracker)
	}

	r.on(old)
	before := r.census()
	_, _, err := r.runtime.Restore(t.Context(), "source/warm", "clone", nil)
	if !errors.Is(err, microvm.ErrIncompatible) || !strings.Contains(err.Error(), "Firecracker 1.13.0, here is 1.12.1 (") {
		t.Errorf("restore without its version: %v", err)
	}
	r.unchanged(before)
	info, err := r.runtime.Snapshot(t.Context(), "source/warm")
	if err != nil || !strings.Contains(info.Problem, "1.13.0") {
		t.Errorf("its problem is %q, %v", info.Problem, err)
	}

	r.on(old, filepath.Join(t.TempDir(), "none"), other)
	clone := r.restore("source/warm", "clone", nil)
	if got := r.runsAs(clone); got != other {
		t.Errorf("it is on %s", got)
	}
	if info := r.snapshot(clone, "again", nil); info.Firecracker != "1.13.0" {
		t.Errorf("a snapshot of what was restored is of %s", info.Firecracker)
	}
	if info := r.snapshot(r.named("source"), "later", nil); info.Firecracker != "1.13.0" {
		t.Errorf("a snapshot of what was booted before is of %s", info.Firecracker)
	}
	if _, err := clone.Stop(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	r.start(clone)
	if got := r.runsAs(clone); got != old {
		t.Errorf("it boots on %s", got)
	}
	if info := r.snapshot(clone, "booted", nil); info.Firecracker != "1.12.1" {
		t.Errorf("a snapshot of what was booted is of %s", info.Firecracker)
	}
	if got := r.runsAs(r.restore("clone/booted", "another", nil)); got != old {
		t.Errorf("what the default has made is restored by %s", got)
	}
}

// Versions that are missing are told with those that there are, and with what keeps a binary from telling its own.
func TestMissingVersionNamesWhatThereIs(t *testing.T) {
	first, second, third := fakeBinary(t, "1.10.1"), fakeBinary(t, "1.12.1"), fakeBinary(t, "1.13.0")
	r := fakeRig(t, third)
	r.start(r.create("source"))
	r.snapshot(r.named("source"), "warm", nil)
	r.on(first, second, "/nonexistent/firecracker")
	_, _, err := r.runtime.Restore(t.Context(), "source/warm", "clone", nil)
	if !errors.Is(err, microvm.ErrIncompatible) {
		t.Errorf("restore: %v, want ErrIncompatible", err)
	}
	for _, want := range []string{"1.13.0, here is 1.10.1, 1.12.1 (", "Options.Binaries", "MICROVM_FIRECRACKER_BINARIES", "/nonexistent/firecracker"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("restore: %v, without %q", err, want)
		}
	}
	r.on(first, second, third)
	r.restore("source/warm", "clone", nil)
}

// What a version must not be used for is asked of the one that the machine is on.
func TestChecksAreOfTheMachinesVersion(t *testing.T) {
	t.Run("pause", func(t *testing.T) { // of 1.16.0: see api's known problems
		sound, odd := fakeBinary(t, "1.15.1"), fakeBinary(t, "1.16.0")
		r := fakeRig(t, odd)
		r.start(r.create("source"))
		r.snapshot(r.named("source"), "warm", nil)
		r.on(sound, odd)
		clone, booted := r.restore("source/warm", "clone", nil), r.create("booted")
		r.start(booted)
		if err := clone.Pause(t.Context()); !errors.Is(err, microvm.ErrUnsupported) || !strings.Contains(err.Error(), "1.16.0") {
			t.Errorf("pause on 1.16.0: %v", err)
		}
		if err := booted.Pause(t.Context()); err != nil {
			t.Errorf("pause on 1.15.1: %v", err)
		}
	})
	t.Run("diff of much memory", func(t *testing.T) {
		sound, odd := fakeBinary(t, "1.15.1"), fakeBinary(t, "1.12.1")
		r := fakeRig(t, odd)
		r.spec.MemoryMiB = diffCorruptMiB + 1
		r.start(r.create("source"))
		r.snapshot(r.named("source"), "warm", nil)
		r.on(sound, odd)
		clone, booted := r.restore("source/warm", "clone", nil), r.create("booted")
		r.start(booted)
		diff := &microvm.SnapshotOptions{Diff: true}
		if _, err := clone.Snapshot(t.Context(), "diff", diff); !errors.Is(err, microvm.ErrUnsupported) || !strings.Contains(err.Error(), "1.12.1") {
			t.Errorf("diff on 1.12.1: %v", err)
		}
		r.snapshot(booted, "full", nil)
		r.snapshot(booted, "diff", diff)
	})
	t.Run("a run of before versions were recorded", func(t *testing.T) {
		r := fakeRig(t, fakeBinary(t, "1.13.0"), fakeBinary(t, "1.12.1"))
		vm := r.create("old")
		r.start(vm)
		run := must(r.driver.state.ReadRun(vm.UID()))
		(*run).Firecracker = ""
		lock := *must(r.driver.state.Lock(t.Context(), vm.UID()))
		err := lock.WriteRun(**run)
		lock.Unlock()
		if err != nil {
			t.Fatal(err)
		}
		if info := r.snapshot(vm, "warm", nil); info.Firecracker != "1.13.0" {
			t.Errorf("its snapshot is of %s", info.Firecracker)
		}
	})
}

func TestJailerOf(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"jailer", "jailer-v1.13.0", "vmm"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	o := Options{Jailer: "/default/jailer"}
	for name, want := range map[string]string{
		"firecracker": filepath.Join(dir, "jailer"), "firecracker-v1.13.0": filepath.Join(dir, "jailer-v1.13.0"), "firecracker-v1.14.0": o.Jailer, "vmm": o.Jailer,
	} {
		if got := o.JailerOf(filepath.Join(dir, name)); got != want {
			t.Errorf("of %s: %s, want %s", name, got, want)
		}
	}
}

// TestRealRestoreBySecondBinary: a real snapshot is restored by a binary that is not the default, beside a default of another version.
func TestRealRestoreBySecondBinary(t *testing.T) {
	counting(t, ring.Real(t), func(t *testing.T, r *rig) {
		dir := t.TempDir()
		maker := filepath.Join(dir, "firecracker-made")
		command(t, "cp", r.options.Firecracker, maker)
		command(t, "cp", r.options.Jailer, filepath.Join(dir, "jailer-made"))
		other := filepath.Join(dir, "firecracker")
		if err := os.WriteFile(other, []byte("#!/bin/sh\necho Firecracker v1.7.0\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		real := r.options.Firecracker
		vm := r.create("one")
		r.start(vm)
		r.pause(vm)
		r.snapshot(vm, "warm", nil)
		before := r.census()

		r.on(other)
		if _, _, err := r.runtime.Restore(t.Context(), "one/warm", "two", nil); !errors.Is(err, microvm.ErrIncompatible) || !strings.Contains(err.Error(), "1.7.0") {
			t.Errorf("restore without its version: %v", err)
		}
		r.on(other, maker)
		clone := r.restore("one/warm", "two", nil)
		if err := clone.Resume(within(t)); err != nil {
			t.Fatal(err)
		}
		r.goesOn(clone, "one/warm")
		exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", r.info(clone).PID))
		if err != nil || filepath.Base(exe) != filepath.Base(maker) {
			t.Errorf("it runs as %s, %v", exe, err)
		}
		if err := errors.Join(clone.Pause(within(t)), clone.Resume(within(t))); err != nil {
			t.Error(err)
		}
		if _, err := clone.Stop(within(t), &microvm.StopOptions{Force: true}); err != nil {
			t.Error(err)
		}
		r.on(real)
		clone = r.named("two")
		r.start(clone)
		if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", r.info(clone).PID)); err != nil || filepath.Base(exe) != filepath.Base(real) {
			t.Errorf("it boots as %s, %v", exe, err)
		}
		r.destroy(clone)
		if left := filepath.Join(r.options.StateDir, "jails", filepath.Base(maker)); exists(left) {
			if err := os.Remove(left); err != nil { // empty, as that of each binary
				t.Error(err)
			}
		}
		r.unchanged(before)
	})
}
