//go:build linux

package firecracker

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/inventory"
	"github.com/tangle-network/microvm-runtime/internal/setup"
	"github.com/tangle-network/microvm-runtime/internal/testing/tinyguest"
)

// rig is a state directory of a test's own, with a driver on it whose steps can be made to fail.
type rig struct {
	t       *testing.T
	options Options
	driver  *driver
	runtime *microvm.Runtime
	spec    microvm.Spec // of the machines that create makes

	mu   sync.Mutex
	hook func(point string) error
}

// tiny is a machine of the few-instruction guest.
var tiny = microvm.Spec{Diskless: true}

func newRig(t *testing.T, p setup.Parts, bare bool, program tinyguest.Program) *rig {
	t.Helper()
	r := &rig{t: t, options: testOptions(t, p, bare), spec: tiny}
	r.options.Kernel = kernelOf(t, program)
	r.options.hook = func(point string) error {
		r.mu.Lock()
		hook := r.hook
		r.mu.Unlock()
		if hook == nil {
			return nil
		}
		return hook(point)
	}
	r.reopen()
	t.Cleanup(func() { r.runtime.Close() })
	return r
}

func kernelOf(t *testing.T, program tinyguest.Program) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kernel")
	if err := tinyguest.Write(path, program); err != nil {
		t.Fatal(err)
	}
	return path
}

// reopen is another process's view: a driver that knows nothing but the state directory.
func (r *rig) reopen() {
	r.t.Helper()
	if r.runtime != nil {
		if err := r.runtime.Close(); err != nil {
			r.t.Error(err)
		}
	}
	d, err := open(r.options)
	if err != nil {
		r.t.Fatal(err)
	}
	r.driver, r.runtime = d, microvm.New(d)
}

func (r *rig) setHook(hook func(string) error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hook = hook
}

// failAt makes the step of a point fail with err.
func (r *rig) failAt(point string, err error) {
	r.setHook(func(at string) error {
		if at == point {
			return err
		}
		return nil
	})
}

func (r *rig) create(name string) *microvm.VM {
	r.t.Helper()
	vm, err := r.runtime.Create(r.t.Context(), name, r.spec)
	if err != nil {
		r.t.Fatal(err)
	}
	return vm
}

func (r *rig) start(vm *microvm.VM) {
	r.t.Helper()
	if err := vm.Start(r.t.Context(), nil); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) destroy(vm *microvm.VM) {
	r.t.Helper()
	if err := vm.Destroy(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) info(vm *microvm.VM) microvm.Info {
	r.t.Helper()
	info, err := vm.Info(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	return info
}

// census is all that the rig's machines have on the host, but for the consoles and logs that outlive a failed start to be read, the store, and what is the
// state directory's own.
func (r *rig) census() inventory.Census {
	r.t.Helper()
	census, err := inventory.Take(inventory.Options{Slice: r.options.Slice, Roots: []string{r.options.StateDir, r.options.SocketDir}, Under: filepath.Dir(r.options.StateDir)})
	if err != nil {
		r.t.Fatal(err)
	}
	kept := r.driveOwners()
	for _, item := range census {
		path := item.Name
		own := strings.HasPrefix(path, filepath.Join(r.options.StateDir, "store")) || strings.HasPrefix(path, filepath.Join(r.options.SocketDir, ".run")) ||
			strings.HasPrefix(path, filepath.Join(r.options.SocketDir, networkDir)) || path == filepath.Join(r.options.StateDir, "subnet.json") || // slots stay made, for the next
			path == filepath.Join(r.options.StateDir, "slots", "free") || path == filepath.Join(r.options.StateDir, "slots", "lock") ||
			path == filepath.Join(r.options.StateDir, "jails", filepath.Base(r.options.Firecracker))
		if !own {
			kept = append(kept, item)
		}
	}
	return kept
}

// driveOwners are the drives with whose they are.
func (r *rig) driveOwners() (kept inventory.Census) {
	for _, drive := range r.spec.Drives {
		info, err := os.Lstat(drive.Path)
		if err != nil {
			r.t.Fatal(err)
		}
		stat := info.Sys().(*syscall.Stat_t)
		kept = append(kept, inventory.Item{Kind: "drive", Name: fmt.Sprintf("%s of %d:%d, %v, inode %d", drive.Path, stat.Uid, stat.Gid, info.Mode(), stat.Ino)})
	}
	return kept
}

// unchanged fails the test when the rig's machines have something that they had not.
func (r *rig) unchanged(before inventory.Census) {
	r.t.Helper()
	if changes := inventory.Diff(before, r.census()); !changes.Empty() {
		r.t.Errorf("the host has changed:\n%s", changes)
	}
}

// with runs the rest of a test under another T.
func (r *rig) with(t *testing.T) *rig {
	r.t = t
	return r
}

// points returns every failpoint of a verb, as a run of it passes them.
func (r *rig) points(verb string) []string {
	r.t.Helper()
	var points []string
	r.setHook(func(point string) error {
		if strings.HasPrefix(point, verb+"/") {
			points = append(points, point)
		}
		return nil
	})
	vm := r.create("probe")
	r.start(vm)
	if verb == "snapshot" || verb == "restore" || verb == "claim" {
		r.snapshot(vm, "probe", nil)
		r.restore("probe/probe", "restored", &microvm.RestoreOptions{Hold: true})
		r.destroy(r.claim("restored", "claimed"))
		if err := r.runtime.DeleteSnapshot(within(r.t), "probe/probe"); err != nil {
			r.t.Fatal(err)
		}
	}
	if err := vm.Destroy(context.Background()); err != nil {
		r.t.Fatal(err)
	}
	r.setHook(nil)
	if len(points) < 4 {
		r.t.Fatalf("only points %q", points)
	}
	return points
}

// lives says whether a process of the machine's runs, whatever the records say.
func (r *rig) lives(uid string) bool {
	r.t.Helper()
	census, err := inventory.Take(inventory.Options{})
	if err != nil {
		r.t.Fatal(err)
	}
	for _, item := range census {
		if item.Kind == "process" && strings.Contains(item.Detail, uid) {
			return true
		}
	}
	return false
}

func (r *rig) volatile(uid string) string { return r.driver.state.Volatile(uid) }

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
