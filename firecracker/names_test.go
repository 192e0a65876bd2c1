//go:build linux

package firecracker

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/kernels"
	"github.com/tangle-network/microvm-runtime/internal/snapstore"
	"github.com/tangle-network/microvm-runtime/internal/state"
	"github.com/tangle-network/microvm-runtime/internal/testing/fakekernel"
	"github.com/tangle-network/microvm-runtime/internal/testing/fakevmm"
)

// TestStacks: a name without a slash is a stack's, and one that is not known says which are.
func TestStacks(t *testing.T) {
	o := fakeOptions(t, fakevmm.Faults{})
	o.TemplateDir = t.TempDir()
	path := filepath.Join(o.TemplateDir, "debian-12", "rootfs.ext4")
	for _, dir := range []string{"debian-12", "empty", ".hidden"} {
		if err := os.Mkdir(filepath.Join(o.TemplateDir, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{path, filepath.Join(o.TemplateDir, ".hidden", "rootfs.ext4")} {
		if err := os.WriteFile(file, make([]byte, 4096), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	rt, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	defer rt.Close()
	vm, err := rt.Create(t.Context(), "one", microvm.Spec{Rootfs: "debian-12"})
	if err != nil {
		t.Fatal(err)
	}
	if info, err := vm.Info(t.Context()); err != nil || info.Spec.Rootfs != path {
		t.Errorf("rootfs %q, %v, want %q", info.Spec.Rootfs, err, path)
	}
	if err := vm.Start(t.Context(), nil); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"debian", "empty", ".hidden", "../debian-12", "debian-12/rootfs.ext4"} {
		_, err := rt.Create(t.Context(), "two", microvm.Spec{Rootfs: name})
		if !errors.Is(err, microvm.ErrInvalid) || !strings.Contains(err.Error(), "Spec.Rootfs") {
			t.Errorf("%s: %v, want ErrInvalid of Spec.Rootfs", name, err)
		}
		if microvm.ValidateName(name) == nil && !strings.Contains(err.Error(), `only ["debian-12"]`) {
			t.Errorf("%s: %v does not say which there are", name, err)
		}
	}
}

// TestNamedKernel: a Spec may name a kernel that was imported, and its machines outlive its removal.
func TestNamedKernel(t *testing.T) {
	o := fakeOptions(t, fakevmm.Faults{})
	rt, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	defer rt.Close()
	dir := kernels.Dir(filepath.Join(o.StateDir, "kernels"))
	if _, err := rt.Create(t.Context(), "one", microvm.Spec{Diskless: true, Kernel: "6.1.0-9"}); !errors.Is(err, microvm.ErrInvalid) || !strings.Contains(err.Error(), "only []") {
		t.Errorf("before there is any: %v", err)
	}
	image := filepath.Join(t.TempDir(), "vmlinux")
	if err := os.WriteFile(image, fakekernel.Vmlinux("6.1.0-9"), 0o644); err != nil {
		t.Fatal(err)
	}
	imported, err := dir.Import(t.Context(), "", kernels.Source{Image: image})
	if err != nil {
		t.Fatal(err)
	}
	vm, err := rt.Create(t.Context(), "one", microvm.Spec{Diskless: true, Kernel: "6.1.0-9"})
	if err != nil {
		t.Fatal(err)
	}
	if info, err := vm.Info(t.Context()); err != nil || info.Spec.Kernel != imported.Vmlinux {
		t.Errorf("kernel %q, %v", info.Spec.Kernel, err)
	}
	if err := dir.Remove(t.Context(), "6.1.0-9"); err != nil {
		t.Fatal(err)
	}
	if _, err := rt.Create(t.Context(), "two", microvm.Spec{Diskless: true, Kernel: "6.1.0-9"}); !errors.Is(err, microvm.ErrInvalid) {
		t.Errorf("after its removal: %v", err)
	}
	if err := vm.Start(t.Context(), nil); err != nil {
		t.Errorf("the machine that has it: %v", err)
	}
}

// TestEachCloneHasAHostName also where its name has nothing that a host name can have.
func TestEachCloneHasAHostName(t *testing.T) {
	for name, want := range map[string]string{"job_7": "job-7", "_": "uid", "__": "uid", "_.a-": "a"} {
		r := &restoration{manifest: &snapstore.Manifest{}, record: &state.Record{UID: "uid"}, name: name}
		if got := r.renewal().Hostname; got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}
