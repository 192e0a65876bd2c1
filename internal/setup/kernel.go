//go:build linux

package setup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/tangle-network/microvm-runtime/kernel"
)

// kernelPackage depends on the current package of the kernel for virtual machines, whose name has its version in it.
const kernelPackage = "linux-image-cloud-amd64"

// kernel gets the distribution's kernel for virtual machines, with its modules. Apt checks its signature.
func (r *runner) kernel(ctx context.Context) error {
	if exists(r.parts.Vmlinux) && exists(r.parts.Vmlinuz) {
		return nil
	}
	name, err := r.currentKernel(ctx, "")
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(r.parts.Cache, "kernel-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	deb, err := r.downloadPackage(ctx, dir, name)
	if err != nil {
		return err
	}
	return r.installKernel(deb, filepath.Join(dir, "out"))
}

// currentKernel resolves a package that depends on the present one of its kind, whose version changes every few days; "" is the kernel for virtual machines. Any other package is itself.
func (r *runner) currentKernel(ctx context.Context, wanted string) (string, error) {
	named := cmp.Or(wanted, kernelPackage)
	show := func() (string, error) {
		out, err := exec.CommandContext(ctx, "apt-cache", "depends", "--", named).Output()
		if name, ok := dependedOn(string(out)); ok {
			return name + "-unsigned", nil
		}
		if err == nil && wanted != "" && strings.HasPrefix(string(out), wanted+"\n") {
			return wanted, nil
		}
		reason := fmt.Errorf("apt knows no package %s (supported: %s; elsewhere put vmlinuz, vmlinux and lib/modules/RELEASE of a kernel into CACHE/kernel/current, or import one with microvm kernel import)", named, strings.Join(supported, ", "))
		if err != nil {
			reason = fmt.Errorf("%w: %w", reason, err)
		}
		return "", reason
	}
	if name, err := show(); err == nil {
		return name, nil
	}
	if err := r.command(ctx, "", "apt-get", "update", "-q"); err != nil {
		return "", err
	}
	return show()
}

// dependedOn returns the kernel that a package depends on, out of what apt-cache says; one that has a kernel depends on none.
func dependedOn(depends string) (string, bool) {
	for line := range strings.Lines(depends) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "Depends: "); ok && strings.HasPrefix(name, "linux-image-") {
			return name, true
		}
	}
	return "", false
}

// installKernel takes the image and its modules out of a package. They are put together in a directory that must not exist, and appear in the cache whole.
func (r *runner) installKernel(deb, out string) error {
	d, err := kernel.OpenDeb(deb)
	if err != nil {
		return err
	}
	if d.Vmlinuz == nil || d.Modules == nil {
		return fmt.Errorf("package %s has no kernel with its modules", deb)
	}
	vmlinux, err := kernel.Extract(d.Vmlinuz)
	if err != nil {
		return err
	}
	r.say("kernel: %s, %d MiB unpacked", d.Release, len(vmlinux)>>20)
	if err := os.Mkdir(out, 0o755); err != nil {
		return err
	}
	if err := errors.Join(d.Unpack(out), os.WriteFile(filepath.Join(out, "vmlinux"), vmlinux, 0o644)); err != nil {
		return err
	}
	place := filepath.Join(r.parts.Cache, "kernel", d.Release)
	if err := errors.Join(os.MkdirAll(filepath.Dir(place), 0o755), os.RemoveAll(place)); err != nil {
		return err
	}
	if err := os.Rename(out, place); err != nil {
		return err
	}
	link := filepath.Dir(r.parts.Vmlinux)
	if err := os.Remove(link + ".new"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return errors.Join(os.Symlink(d.Release, link+".new"), os.Rename(link+".new", link))
}
