//go:build linux

package firecracker

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/state"
	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
	"github.com/tangle-network/microvm-runtime/internal/testing/tinyguest"
)

// TestRealDamagedMachine: it is listed with what is wrong, no verb but Destroy touches it, and the others go on.
func TestRealDamagedMachine(t *testing.T) {
	p := ring.Real(t)
	for _, tc := range []struct {
		name    string
		spoil   func(path string) error
		want    error
		destroy bool
	}{
		{"cut short", func(path string) error { return os.Truncate(path, 10) }, state.ErrDamaged, true},
		{"symbolic link", func(path string) error {
			return errors.Join(os.Rename(path, path+".real"), os.Symlink(path+".real", path))
		}, state.ErrDamaged, true},
		{"readable by others", func(path string) error { return os.Chmod(path, 0o644) }, state.ErrDamaged, true},
		{"newer", func(path string) error {
			text, err := os.ReadFile(path)
			return errors.Join(err, os.WriteFile(path, []byte(strings.Replace(string(text), `"version":1`, `"version":9`, 1)), 0o600))
		}, microvm.ErrIncompatible, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t, p, true, tinyguest.Program{})
			vm, other := r.create("one"), r.create("other")
			path := filepath.Join(r.driver.state.Machine(vm.UID()), "record.json")
			whole, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := tc.spoil(path); err != nil {
				t.Fatal(err)
			}
			if info := r.listed(vm.UID()); info.State != microvm.StateDamaged || info.Name != "one" || !strings.Contains(info.Problem, path) {
				t.Errorf("listed as %+v", info)
			}
			_, stop := vm.Stop(t.Context(), nil)
			for verb, err := range map[string]error{"start": vm.Start(t.Context(), nil), "stop": stop, "pause": vm.Pause(t.Context()), "rename": vm.Rename(t.Context(), "two")} {
				if !errors.Is(err, tc.want) {
					t.Errorf("%s: %v, want %v", verb, err, tc.want)
				}
			}
			if info := r.listed(other.UID()); info.State != microvm.StateCreated {
				t.Errorf("the other is listed as %+v", info)
			}
			if _, err := r.runtime.Create(t.Context(), "one", tiny); !errors.Is(err, microvm.ErrExists) {
				t.Errorf("create of its name: %v", err)
			}
			err = vm.Destroy(t.Context())
			if tc.destroy != (err == nil) || err != nil && !errors.Is(err, tc.want) {
				t.Errorf("destroy: %v", err)
			}
			if err != nil { // for the clean-up
				if err := os.WriteFile(path, whole, 0o600); err != nil {
					t.Fatal(err)
				}
			} else if exists(r.driver.state.Machine(vm.UID())) || r.driver.state.Taken("one") {
				t.Error("something of it is left")
			}
		})
	}
}

// TestRealDamagedRun: a machine runs and no record says which process it is. Destroy ends it.
func TestRealDamagedRun(t *testing.T) {
	bothWays(t, ring.Real(t), func(t *testing.T, r *rig) {
		before := r.census()
		for _, reopened := range []bool{false, true} {
			for _, file := range []string{"run.json", "commit.json", "record.json"} {
				vm := r.create("one")
				r.start(vm)
				dir := r.volatile(vm.UID())
				if file == "record.json" {
					dir = r.driver.state.Machine(vm.UID())
				}
				if err := os.Truncate(filepath.Join(dir, file), 5); err != nil {
					t.Fatal(err)
				}
				if reopened {
					r.reopen()
					vm = *must(r.runtime.VM(t.Context(), "one"))
				}
				if info := r.listed(vm.UID()); info.State != microvm.StateDamaged {
					t.Errorf("%s: listed as %+v", file, info)
				}
				r.destroy(vm)
				if r.lives(vm.UID()) {
					t.Errorf("%s: its VMM lives", file)
				}
				r.unchanged(before)
			}
		}
	})
}
