//go:build linux

package firecracker

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/tangle-network/microvm-runtime/kernel"
)

// guestModules are what the agent needs of a Linux kernel, where they are not built in.
var guestModules = []string{"virtio_mmio", "virtio_blk", "virtio_net", "vmw_vsock_virtio_transport", "virtio_rng", "overlay", "ext4"}

// initramfs returns the initial RAM file system of the agent for a kernel, which is made once.
func (d *driver) initramfs(ctx context.Context, stored, kernelPath string) (string, error) {
	agent, err := d.findAgent()
	if err != nil {
		return "", err
	}
	binary, err := d.store.Import(ctx, agent)
	if err != nil {
		return "", fmt.Errorf("Options.Agent: %w", err)
	}
	modules, err := d.modulesOf(kernelPath)
	if err != nil {
		return "", err
	}
	key := fmt.Sprintf("initramfs\x00%s\x00%s\x00%s", filepath.Base(stored), binary.Key, modules)
	file, err := d.store.Make(ctx, key, func(temp string) error {
		return makeInitramfs(temp, binary.Path, modules)
	})
	return file.Path, err
}

func makeInitramfs(path, agent, modules string) error {
	tree, err := kernel.OpenModules(modules)
	if err != nil {
		return err
	}
	files, err := tree.Resolve(guestModules...)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := kernel.WriteInitramfs(f, kernel.Initramfs{Init: agent, Modules: files}); err != nil {
		return err
	}
	return f.Close()
}
