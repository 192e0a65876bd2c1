//go:build linux

package firecracker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/firecracker/api"
)

// MinVersion returns the oldest Firecracker that the driver works with.
func MinVersion() api.Version { return api.Version{Major: 1, Minor: 7} }

// BinaryVersion asks a firecracker or jailer binary for its version.
func BinaryVersion(ctx context.Context, path string) (api.Version, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	if err != nil {
		return api.Version{}, fmt.Errorf("%s --version: %w", path, err)
	}
	_, text, _ := strings.Cut(string(out), " ") // "Firecracker v1.12.1", "Jailer v1.12.1"
	version, err := api.ParseVersion(text)
	if err != nil {
		return version, fmt.Errorf("%s --version: %w", path, err)
	}
	return version, nil
}

// binary knows the version of the one at path, and asks again when it was replaced.
type binary struct {
	path string

	mu      sync.Mutex
	asked   file
	version api.Version
}

// file tells one state of a file from others.
type file struct {
	dev, ino uint64
	size     int64
	mtime    syscall.Timespec
}

func (b *binary) ask(ctx context.Context) (api.Version, error) {
	info, err := os.Stat(b.path)
	if errors.Is(err, os.ErrNotExist) {
		return api.Version{}, fmt.Errorf("%w: Options.Firecracker: %w (install a Firecracker release)", microvm.ErrInvalid, err)
	}
	if err != nil {
		return api.Version{}, err
	}
	stat := info.Sys().(*syscall.Stat_t)
	now := file{dev: stat.Dev, ino: stat.Ino, size: stat.Size, mtime: stat.Mtim}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.asked == now {
		return b.version, nil
	}
	version, err := BinaryVersion(ctx, b.path)
	if err != nil {
		return version, err
	}
	b.asked, b.version = now, version
	return version, nil
}

// permits refuses a verb that the installed Firecracker must not be used for.
func (d *driver) permits(ctx context.Context, verb string) error {
	version, err := d.binary.ask(ctx)
	if err != nil {
		return err
	}
	for _, problem := range version.Known() {
		if problem.Verb == verb {
			return fmt.Errorf("%w: %s on Firecracker %s: %s (%s)", microvm.ErrUnsupported, verb, version, problem.What, problem.Remedy)
		}
	}
	return nil
}

// supports refuses a plan that the installed Firecracker can't run, before anything is touched: it would refuse it late, or ignore what it does not know.
func (d *driver) supports(ctx context.Context, p plan) error {
	version, err := d.binary.ask(ctx)
	if err != nil {
		return err
	}
	if version.Compare(MinVersion()) < 0 {
		return fmt.Errorf("%w: Firecracker %s (needs %s or later)", microvm.ErrUnsupported, version, MinVersion())
	}
	if err := api.Check(version, p.config()); err != nil {
		return fmt.Errorf("%w: %w", microvm.ErrUnsupported, err)
	}
	return nil
}
