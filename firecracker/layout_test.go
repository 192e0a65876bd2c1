//go:build linux

package firecracker

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
	"github.com/tangle-network/microvm-runtime/internal/testing/tinyguest"
)

// TestRealOtherOptions: a process whose options are not the state directory's sees no machine stopped that runs, and starts none twice.
func TestRealOtherOptions(t *testing.T) {
	bothWays(t, ring.Real(t), func(t *testing.T, r *rig) {
		vm := r.create("one")
		r.start(vm)
		pid := r.info(vm).PID
		elsewhere := filepath.Join(filepath.Dir(r.options.StateDir), "elsewhere")
		for field, edit := range map[string]func(*Options){
			"SocketDir": func(o *Options) { o.SocketDir = elsewhere },
			"JailDir":   func(o *Options) { o.JailDir = elsewhere },
			"Slice":     func(o *Options) { o.Slice += "x" },
			"FirstUID":  func(o *Options) { o.FirstUID = 70000 },
		} {
			other := r.options
			edit(&other)
			for verb, open := range map[string]func() error{
				"new": func() error {
					rt, err := New(other)
					if err == nil {
						rt.Close()
					}
					return err
				},
				"purge": func() error { _, err := Purge(t.Context(), other); return err },
			} {
				if err := open(); !errors.Is(err, microvm.ErrInvalid) || !strings.Contains(err.Error(), "Options."+field) {
					t.Errorf("%s with another %s: %v, want ErrInvalid that names it", verb, field, err)
				}
			}
		}
		if exists(elsewhere) {
			t.Error("something was made for it")
		}
		other := r.options
		other.UIDCount, other.Bare = 20, !other.Bare
		d, err := open(other)
		if err != nil {
			t.Fatalf("what does not belong to the directory may differ: %v", err)
		}
		defer d.Close()
		if info, err := d.Info(t.Context(), vm.UID()); err != nil || info.PID != pid || info.State != microvm.StateRunning {
			t.Errorf("from there: %+v, %v", info, err)
		}
	})
}

// TestRealJailUserIsRecorded: whom a machine runs as does not follow the options, and is told by the slot where the record is older.
func TestRealJailUserIsRecorded(t *testing.T) {
	r := newRig(t, ring.Real(t), false, tinyguest.Program{})
	vm := r.create("one")
	record := *must(r.driver.state.ReadRecord(vm.UID()))
	if record.JailUID != defaultFirstUID || record.JailGID != defaultFirstUID {
		t.Fatalf("recorded: user %d, group %d", record.JailUID, record.JailGID)
	}
	runs := func(want int) {
		t.Helper()
		r.start(vm)
		info, err := os.Stat(fmt.Sprintf("/proc/%d", r.info(vm).PID))
		if err != nil {
			t.Fatal(err)
		}
		if got := int(info.Sys().(*syscall.Stat_t).Uid); got != want {
			t.Errorf("it runs as %d, want %d", got, want)
		}
		if _, err := vm.Stop(t.Context(), &microvm.StopOptions{Force: true}); err != nil {
			t.Fatal(err)
		}
	}
	runs(defaultFirstUID)
	if err := os.Remove(filepath.Join(r.options.StateDir, "layout.json")); err != nil { // as if it were from before
		t.Fatal(err)
	}
	was := r.options
	r.options.FirstUID = defaultFirstUID + 1000
	r.reopen()
	vm = *must(r.runtime.VM(t.Context(), "one"))
	runs(defaultFirstUID)
	record.JailUID, record.JailGID = 0, 0
	lock := *must(r.driver.state.Lock(t.Context(), vm.UID()))
	err := lock.WriteRecord(record)
	lock.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	runs(defaultFirstUID + 1000)
	if err := os.Remove(filepath.Join(r.options.StateDir, "layout.json")); err != nil { // for the clean-up
		t.Fatal(err)
	}
	r.options = was
	r.reopen()
}

// TestRealBinaryOfAnotherName: the jailer puts jails below the name of the binary, and of that which a link leads to. A machine that runs under one name can be worked on, ended and started
// under another.
func TestRealBinaryOfAnotherName(t *testing.T) {
	r := newRig(t, ring.Real(t), false, tinyguest.Program{Text: marker + "\n"})
	vm := r.create("one")
	r.start(vm)
	old := filepath.Join(r.options.StateDir, "jails", "firecracker", vm.UID())
	dir := t.TempDir()
	other := filepath.Join(dir, "firecracker")
	command(t, "cp", r.options.Firecracker, filepath.Join(dir, "firecracker-v9"))
	if err := os.Symlink("firecracker-v9", other); err != nil {
		t.Fatal(err)
	}
	r.options.Firecracker = other
	r.reopen()
	vm = *must(r.runtime.VM(t.Context(), "one"))
	if err := errors.Join(vm.Pause(t.Context()), vm.Resume(t.Context())); err != nil {
		t.Error(err)
	}
	if exit, err := vm.Stop(t.Context(), &microvm.StopOptions{Force: true}); err != nil || exit.Reason != microvm.ReasonForced {
		t.Errorf("stop: %+v, %v", exit, err)
	}
	if exists(old) {
		t.Error("its jail is still there")
	}
	r.start(vm)
	if _, err := vm.Stop(t.Context(), &microvm.StopOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	r.destroy(vm)
}
