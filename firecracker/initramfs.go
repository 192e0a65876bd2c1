//go:build linux

package firecracker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/kernel"
)

// guestModules are what the agent needs of a Linux kernel, where they are not built in.
var guestModules = []string{"virtio_mmio", "virtio_blk", "virtio_net", "vmw_vsock_virtio_transport", "virtio_rng", "overlay", "ext4"}

// initramfs returns the initial RAM file system of the agent for a kernel, which is made once. The kernel is the store's copy of the one at path.
func (d *driver) initramfs(ctx context.Context, stored, path string) (string, error) {
	agent, err := d.options.FindAgent()
	if err != nil {
		return "", err
	}
	binary, err := d.store.Import(ctx, agent)
	if err != nil {
		return "", fmt.Errorf("Options.Agent: %w", err)
	}
	place := d.options.modulesPlace(path)
	file, err := d.store.Make(ctx, fmt.Sprintf("initramfs\x00%s\x00%s\x00%v", filepath.Base(stored), binary.Key, place), func(temp string) error {
		modules, err := place.modules(stored)
		if err != nil {
			return err
		}
		return makeInitramfs(temp, binary.Path, modules)
	})
	return file.Path, err
}

func makeInitramfs(path, agent string, modules []kernel.Module) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := kernel.WriteInitramfs(f, kernel.Initramfs{Init: agent, Modules: modules}); err != nil {
		return err
	}
	return f.Close()
}

// modulesPlace says where the modules of a kernel are.
type modulesPlace struct {
	kernel string // the caller's path
	dir    string // lib/modules/RELEASE; "" where it is beside the kernel
}

// modulesPlace returns the place of the modules for a kernel. Options.Modules are those of Options.Kernel alone.
func (o Options) modulesPlace(path string) modulesPlace {
	if path == o.Kernel {
		return modulesPlace{path, o.Modules}
	}
	return modulesPlace{path, ""}
}

// CheckKernel says whether Kernel has the modules that the agent needs, and of which release it is. microvm.ErrInvalid where they are missing, or of another kernel.
func (o Options) CheckKernel() (release string, err error) {
	if _, err := o.modulesPlace(o.Kernel).modules(o.Kernel); err != nil {
		return "", err
	}
	return kernel.Release(o.Kernel)
}

// modules returns what the agent needs. That a module is of another kernel would show only at boot, so the kernel itself is asked for its release.
func (p modulesPlace) modules(stored string) ([]kernel.Module, error) {
	release, err := kernel.Release(stored)
	if errors.Is(err, kernel.ErrFormat) {
		return nil, fmt.Errorf("%w: kernel %s: %w, and the agent needs one (set Spec.Initrd, or a disk with an init of its own as Spec.Rootfs)", microvm.ErrInvalid, p.kernel, err)
	}
	if err != nil {
		return nil, err
	}
	dir := p.dir
	if dir == "" {
		dir = filepath.Join(filepath.Dir(p.kernel), "lib", "modules", release)
	}
	tree, err := kernel.OpenModules(dir)
	if err == nil && tree.Release() != release {
		err = fmt.Errorf("%w: they are of %s", kernel.ErrVermagic, tree.Release())
	}
	var modules []kernel.Module
	if err == nil {
		modules, err = tree.Resolve(guestModules...)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: kernel %s is Linux %s, and its modules are to be in %s: %w (%s)", microvm.ErrInvalid, p.kernel, release, dir, err, p.remedy(release))
	}
	return modules, nil
}

func (p modulesPlace) remedy(release string) string {
	if p.dir == "" {
		return fmt.Sprintf("beside it are %q; put lib/modules/%s of the kernel's package there, or make it Options.Kernel with Options.Modules, MICROVM_KERNEL_MODULES", p.beside(), release)
	}
	return "let Options.Modules, MICROVM_KERNEL_MODULES, name lib/modules/" + release + " of the kernel's package"
}

// beside returns the releases whose modules are beside the kernel.
func (p modulesPlace) beside() []string {
	entries, _ := os.ReadDir(filepath.Join(filepath.Dir(p.kernel), "lib", "modules")) // it may be missing
	names := []string{}
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}
