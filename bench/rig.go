//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

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

// reopen opens the runtime with other options.
func (r *rig) reopen(change func(*firecracker.Options)) (err error) {
	if err := r.Close(); err != nil {
		return err
	}
	change(&r.options)
	r.Runtime, err = firecracker.New(r.options)
	return err
}

// files returns the directory of a snapshot's files.
func (r *rig) files(snapshot string) string {
	return filepath.Join(r.options.StateDir, "snapshots", "all", snapshot)
}

// await waits until so many VMMs, of machines or not, have made a file of this name.
func (r *rig) await(name string, n int) error {
	for begin := time.Now(); ; time.Sleep(time.Millisecond) {
		made, err := filepath.Glob(filepath.Join(r.options.SocketDir, "*", name))
		if err != nil || len(made) == n {
			return err
		}
		if time.Since(begin) > time.Minute {
			return fmt.Errorf("%d VMMs have %s after a minute, not %d", len(made), name, n)
		}
	}
}

// close leaves nothing behind.
func (r *rig) close(ctx context.Context) (err error) {
	if r.Runtime != nil {
		err = r.Close() // first: VMMs that wait are its own
		_, purged := firecracker.Purge(context.WithoutCancel(ctx), r.options)
		err = errors.Join(err, purged)
	}
	for _, dir := range []string{r.dir, r.volatile} {
		if dir != "" {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}
	return err
}
