//go:build linux

package firecracker

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/state"
	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
	"github.com/tangle-network/microvm-runtime/internal/testing/tinyguest"
)

// TestRealCollect: the files of machines that are gone go; those of machines that run or can be started stay, in whatever way they are used.
func TestRealCollect(t *testing.T) {
	bothWays(t, ring.Real(t), func(t *testing.T, r *rig) {
		stays, goes := r.create("stays"), r.create("runs")
		r.start(goes)
		drive := filepath.Join(t.TempDir(), "drive")
		if err := os.WriteFile(drive, make([]byte, 512), 0o600); err != nil {
			t.Fatal(err)
		}
		other, err := r.runtime.Create(t.Context(), "other", microvm.Spec{
			Kernel: kernelOf(t, tinyguest.Program{Text: "other\n"}), Diskless: true, Drives: []microvm.Drive{{Path: drive, ReadOnly: true}},
		})
		if err != nil {
			t.Fatal(err)
		}
		files := must(r.driver.state.ReadRecord(other.UID())).Files
		collect := func(want int) {
			t.Helper()
			if removed, err := r.driver.collect(t.Context()); err != nil || len(removed) != want {
				t.Errorf("removed %+v, %v, want %d files", removed, err, want)
			}
		}
		collect(0)
		r.start(other)
		r.destroy(other)
		collect(2)
		if exists(files.Kernel) || exists(files.Drives[0]) {
			t.Errorf("%+v is still there", files)
		}
		if info := r.info(goes); info.State != microvm.StateRunning {
			t.Errorf("the one that runs is %s", info.State)
		}
		r.start(stays)
		r.destroy(goes)
		collect(0)
		r.destroy(stays)
		collect(1)
		r.start(r.create("again"))
	})
}

// TestRealCollectKnowsNothing: while a machine's record can't be read nothing goes.
func TestRealCollectKnowsNothing(t *testing.T) {
	r := newRig(t, ring.Real(t), true, tinyguest.Program{})
	vm := r.create("one")
	kernel := r.sharedKernel(vm)
	if err := os.Truncate(filepath.Join(r.driver.state.Machine(vm.UID()), "record.json"), 10); err != nil {
		t.Fatal(err)
	}
	if removed, err := r.driver.collect(t.Context()); !errors.Is(err, state.ErrDamaged) || !strings.Contains(err.Error(), vm.UID()) || len(removed) > 0 || !exists(kernel) {
		t.Errorf("removed %+v, %v", removed, err)
	}
	r.destroy(vm)
	if removed, err := r.driver.collect(t.Context()); err != nil || len(removed) != 1 {
		t.Errorf("removed %+v, %v", removed, err)
	}
}

// TestRealCollectMeanwhile: machines that are made while files are collected have theirs.
func TestRealCollectMeanwhile(t *testing.T) {
	r := newRig(t, ring.Real(t), true, tinyguest.Program{})
	rootfs := filepath.Join(t.TempDir(), "rootfs")
	if err := os.WriteFile(rootfs, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	var making, collecting sync.WaitGroup
	done := make(chan struct{})
	for _, name := range []string{"a", "b"} {
		making.Go(func() {
			for range 10 {
				vm, err := r.runtime.Create(t.Context(), name, microvm.Spec{Rootfs: rootfs, RootfsWritable: true})
				if err != nil {
					t.Error(err)
					return
				}
				if record, err := r.driver.state.ReadRecord(vm.UID()); err != nil || !exists(record.Files.Kernel) || !exists(record.Files.Base) {
					t.Errorf("%s lacks a file: %+v, %v", name, record.Files, err)
				}
				if err := vm.Destroy(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	collecting.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			if _, err := r.driver.collect(t.Context()); err != nil {
				t.Error(err)
			}
		}
	})
	making.Wait()
	close(done)
	collecting.Wait()
}
