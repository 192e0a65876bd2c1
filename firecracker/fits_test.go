//go:build linux

package firecracker

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/snapstore"
	"github.com/tangle-network/microvm-runtime/internal/testing/fakevmm"
)

// TestSnapshotOfAnotherHostIsRefused: what a snapshot was made with must be here, and the error says what is not; the same one is restored where it is.
func TestSnapshotOfAnotherHostIsRefused(t *testing.T) {
	r := rigOf(t, fakeOptions(t, fakevmm.Faults{}))
	vm := r.create("one")
	r.start(vm)
	info := r.snapshot(vm, "warm", nil)
	record, err := r.driver.state.ReadRecord(vm.UID())
	if err != nil {
		t.Fatal(err)
	}
	made, err := r.driver.snaps.Read(info.UID)
	if err != nil {
		t.Fatal(err)
	}
	for what, tc := range map[string]struct {
		change func(m *snapstore.Manifest)
		words  []string
	}{
		"layout":      {func(m *snapstore.Manifest) { m.Layout++ }, []string{"layout 2", "here is 1"}},
		"Firecracker": {func(m *snapstore.Manifest) { m.Firecracker = "1.13.0" }, []string{"1.13.0", "here is 1.12.1", "install"}},
		"vendor":      {func(m *snapstore.Manifest) { m.CPU.Vendor = "Other" }, []string{"CPU Other"}},
		"family":      {func(m *snapstore.Manifest) { m.CPU.Family = "99" }, []string{"99/"}},
		"model":       {func(m *snapstore.Manifest) { m.CPU.Model = "98" }, []string{"/98"}},
		"flag":        {func(m *snapstore.Manifest) { m.CPU.Flags = append(slices.Clone(m.CPU.Flags), "zz_flies") }, []string{"zz_flies"}},
		"kernel":      {func(m *snapstore.Manifest) { m.Shared.Kernel = record.Files.Kernel + "-gone" }, []string{record.Files.Kernel + "-gone"}},
		"less": {func(m *snapstore.Manifest) {
			file := m.Files[snapstore.Memory]
			file.Size++
			m.Files = map[string]snapstore.File{snapstore.Memory: file}
		}, []string{"damaged"}},
	} {
		t.Run(what, func(t *testing.T) {
			other := made
			tc.change(&other)
			_, err := r.driver.fits(t.Context(), &other)
			if !errors.Is(err, microvm.ErrIncompatible) {
				t.Fatalf("%v, want ErrIncompatible", err)
			}
			for _, want := range append(tc.words, made.Name) {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v does not say %q", err, want)
				}
			}
		})
	}
	if _, err := r.driver.fits(t.Context(), &made); err != nil {
		t.Errorf("where it was made: %v", err)
	}
}

// TestSnapshotOfAnotherVersionIsRefused before anything is made, while that version is what is installed.
func TestSnapshotOfAnotherVersionIsRefused(t *testing.T) {
	r := rigOf(t, fakeOptions(t, fakevmm.Faults{}))
	vm := r.create("one")
	r.start(vm)
	info := r.snapshot(vm, "warm", nil)
	install := func(version string, when time.Time) {
		t.Helper()
		if err := errors.Join(fakevmm.Inject(r.options.Firecracker, fakevmm.Faults{Version: version}), os.Chtimes(r.options.Firecracker, when, when)); err != nil {
			t.Fatal(err)
		}
	}
	before := r.census()
	for _, version := range []string{"1.12.0", "1.13.0"} { // neither an older one nor a newer one
		install(version, time.Now())
		if _, _, err := r.runtime.Restore(within(t), info.UID, "two", nil); !errors.Is(err, microvm.ErrIncompatible) || !strings.Contains(err.Error(), version) || !strings.Contains(err.Error(), "1.12.1") {
			t.Errorf("with %s: %v", version, err)
		}
	}
	r.unchanged(before)
	install("1.12.1", time.Now().Add(time.Second))
	r.destroy(r.restore(info.UID, "two", nil))
}
