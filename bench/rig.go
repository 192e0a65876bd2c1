//go:build linux

package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/firecracker"
	"github.com/tangle-network/microvm-runtime/internal/setup"
	"github.com/tangle-network/microvm-runtime/internal/testing/tinyguest"
)

// rig is a runtime of machines with a guest of a few instructions, in directories of its own.
type rig struct {
	*microvm.Runtime
	options  firecracker.Options
	dir      string
	volatile string // On a tmpfs, as the default SocketDir is.
}

// newRig makes machines bare, or jailed. A jail needs devices, which a tmpfs for everybody seldom has: there all is on the disk.
func newRig(ctx context.Context, parts setup.Parts, jailed bool) (_ *rig, err error) {
	r := &rig{}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close(ctx))
		}
	}()
	if r.dir, err = os.MkdirTemp("", "bench-"); err != nil {
		return nil, err
	}
	if r.volatile, err = os.MkdirTemp("/dev/shm", "bench-"); err != nil {
		return nil, err
	}
	options := firecracker.Options{
		Firecracker: parts.Firecracker, StateDir: filepath.Join(r.dir, "state"), SocketDir: filepath.Join(r.volatile, "run"), Kernel: filepath.Join(r.dir, "kernel"), MemoryMiB: memoryMiB,
		Bare: true, Slice: "/microvm-bench.slice",
	}
	if jailed {
		options.Bare, options.Jailer, options.SocketDir = false, parts.Jailer, filepath.Join(r.dir, "run")
	}
	if err := tinyguest.Write(options.Kernel, tinyguest.Program{Text: marker + "\n"}); err != nil {
		return nil, err
	}
	r.options = options
	r.Runtime, err = firecracker.New(options)
	return r, err
}

// close leaves nothing behind.
func (r *rig) close(ctx context.Context) (err error) {
	if r.Runtime != nil {
		_, purged := firecracker.Purge(context.WithoutCancel(ctx), r.options)
		err = errors.Join(r.Close(), purged)
	}
	for _, dir := range []string{r.dir, r.volatile} {
		if dir != "" {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}
	return err
}
