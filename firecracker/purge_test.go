//go:build linux

package firecracker

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
	"github.com/tangle-network/microvm-runtime/internal/testing/tinyguest"
)

// TestRealPurgeKeepsWhatIsNotOurs: what others put into our directories is there after a purge, and all else is gone.
func TestRealPurgeKeepsWhatIsNotOurs(t *testing.T) {
	bothWays(t, ring.Real(t), func(t *testing.T, r *rig) {
		vm := r.create("one")
		r.start(vm)
		if _, err := vm.Stop(t.Context(), &microvm.StopOptions{Force: true}); err != nil {
			t.Fatal(err)
		}
		r.start(r.create("two"))
		outside := filepath.Join(t.TempDir(), "precious")
		foreign := []string{filepath.Join(r.options.SocketDir, "precious"), filepath.Join(r.options.SocketDir, ".run", "precious"), filepath.Join(r.options.SocketDir, "applications", "precious")}
		for _, dir := range []string{"", "machines", "names", "slots", "slots/lease", "slots/owner", "store", "store/files", "jails", "jails/firecracker", "jails/firecracker/applications"} {
			if dir = filepath.Join(r.options.StateDir, dir); !r.options.Bare || exists(dir) {
				foreign = append(foreign, filepath.Join(dir, "precious"))
			}
		}
		for _, path := range append(slices.Clone(foreign), outside) {
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte("precious"), 0o600)); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Symlink(filepath.Dir(outside), filepath.Join(r.options.StateDir, "link")); err != nil {
			t.Fatal(err)
		}
		r.runtime.Close()
		purged, err := Purge(t.Context(), r.options)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range append(slices.Clone(foreign), outside) {
			if text, err := os.ReadFile(path); err != nil || string(text) != "precious" {
				t.Errorf("%s: %q, %v", path, text, err)
			}
		}
		want := slices.Clone(foreign)
		for i, path := range want { // of a foreign directory its own path is told
			if dir := filepath.Dir(path); filepath.Base(dir) == "applications" {
				want[i] = dir
			}
		}
		want = append(want, filepath.Join(r.options.StateDir, "link"))
		slices.Sort(want)
		slices.Sort(purged.Stays)
		if !slices.Equal(purged.Stays, want) {
			t.Errorf("stays %q, want %q", purged.Stays, want)
		}
		if _, err := New(r.options); !errors.Is(err, microvm.ErrInvalid) {
			t.Errorf("what stays is ours again: %v", err)
		}
		if err := errors.Join(os.RemoveAll(r.options.StateDir), os.RemoveAll(r.options.SocketDir)); err != nil { // for the clean-up
			t.Fatal(err)
		}
	})
}

// TestRealPurgeOfNoStateOfOurs: a directory that was never ours is refused, and not touched.
func TestRealPurgeOfNoStateOfOurs(t *testing.T) {
	r := newRig(t, ring.Real(t), false, tinyguest.Program{})
	home := t.TempDir()
	precious := filepath.Join(home, ".profile")
	if err := errors.Join(os.WriteFile(precious, nil, 0o600), os.Chmod(home, 0o755)); err != nil {
		t.Fatal(err)
	}
	o := r.options
	for _, option := range []*string{&o.SocketDir, &o.StateDir} {
		was := *option
		*option = home
		if purged, err := Purge(t.Context(), o); !errors.Is(err, microvm.ErrInvalid) {
			t.Errorf("purge: %+v, %v, want ErrInvalid", purged, err)
		}
		if info, err := os.Stat(home); err != nil || info.Mode().Perm() != 0o755 || !exists(precious) {
			t.Errorf("%v, %v, and the file is there: %t", info.Mode(), err, exists(precious))
		}
		*option = was
	}
	if _, err := Purge(t.Context(), o); err != nil {
		t.Errorf("purge of our own: %v", err)
	}
}

// TestRealPurgeOfDamagedSnapshot: what nobody can read goes with the rest.
func TestRealPurgeOfDamagedSnapshot(t *testing.T) {
	r := newRig(t, ring.Real(t), true, tinyguest.Program{After: tinyguest.Count})
	vm := r.create("one")
	r.start(vm)
	info := r.snapshot(vm, "warm", nil)
	if err := os.WriteFile(filepath.Join(r.options.StateDir, snapshotsDir, "all", info.UID, "manifest.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.gone()
}
