//go:build linux

package setup

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/testing/fakekernel"
	"github.com/tangle-network/microvm-runtime/kernel"
)

func newRunner(t *testing.T) *runner {
	t.Helper()
	return &runner{parts: partsIn(t.TempDir()), out: io.Discard, begin: time.Now()}
}

func writeDeb(t *testing.T, p fakekernel.Package) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "linux-image.deb")
	if err := os.WriteFile(path, p.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestInstallKernel puts one kernel after the other in place; the newest is the current one, and what is there is what a driver needs.
func TestInstallKernel(t *testing.T) {
	r := newRunner(t)
	for _, c := range []struct{ release, dir, form string }{
		{"6.1.0-55-cloud-amd64", "lib/modules", ".xz"}, {"6.1.0-56-cloud-amd64", "usr/lib/modules", ".zst"}, {"6.1.0-56-cloud-amd64", "usr/lib/modules", ".gz"},
	} {
		p := fakekernel.KernelPackage(c.release, c.dir, fakekernel.Module{File: "a.ko", Release: c.release})
		p.Form = c.form
		if err := r.installKernel(writeDeb(t, p), filepath.Join(t.TempDir(), "out")); err != nil {
			t.Fatal(err)
		}
		if text, err := os.ReadFile(r.parts.Vmlinux); err != nil || !bytes.Equal(text, fakekernel.Vmlinux(c.release)) {
			t.Errorf("%s: vmlinux: %d bytes, %v", c.release, len(text), err)
		}
		if text, err := os.ReadFile(filepath.Join(filepath.Dir(r.parts.Vmlinux), "config")); err != nil || !strings.Contains(string(text), "CONFIG_") {
			t.Errorf("%s: config: %q, %v", c.release, text, err)
		}
		for _, path := range []string{r.parts.Vmlinux, r.parts.Vmlinuz} {
			if release, err := kernel.Release(path); err != nil || release != c.release {
				t.Errorf("%s: %s is of %q, %v", c.release, path, release, err)
			}
		}
		m, err := kernel.OpenModules(filepath.Join(filepath.Dir(r.parts.Vmlinux), "lib", "modules", c.release))
		if err != nil {
			t.Fatal(err)
		}
		if modules, err := m.Resolve("a", "ext4"); err != nil || len(modules) != 1 {
			t.Errorf("%s: modules %v, %v", c.release, modules, err)
		}
	}
	if entries, err := os.ReadDir(filepath.Join(r.parts.Cache, "kernel")); err != nil || len(entries) != 3 {
		t.Errorf("%v, %v; want two kernels and the link", entries, err)
	}
}

// TestInstallKernelRefuses what is not whole, and leaves what was there.
func TestInstallKernelRefuses(t *testing.T) {
	r := newRunner(t)
	const release = "6.1.0-56-cloud-amd64"
	if err := r.installKernel(writeDeb(t, fakekernel.KernelPackage(release, "lib/modules", fakekernel.Module{File: "a.ko", Release: release})), filepath.Join(t.TempDir(), "out")); err != nil {
		t.Fatal(err)
	}
	var image, modules, garbage fakekernel.Package
	image.Add("boot/vmlinuz-6.12", fakekernel.Vmlinux("6.12"))
	modules.Add("lib/modules/6.12/kernel/a.ko", []byte("x"))
	garbage.Add("boot/vmlinuz-6.12", []byte("MZ"))
	garbage.Add("lib/modules/6.12/kernel/a.ko", []byte("x"))
	for name, p := range map[string]fakekernel.Package{"an image": image, "modules": modules, "garbage": garbage, "nothing": {}} {
		if err := r.installKernel(writeDeb(t, p), filepath.Join(t.TempDir(), "out")); err == nil {
			t.Errorf("a package of %s was installed", name)
		}
	}
	if got, err := kernel.Release(r.parts.Vmlinux); err != nil || got != release {
		t.Errorf("the kernel is %q, %v; want %s", got, err, release)
	}
}
