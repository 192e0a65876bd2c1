//go:build linux

// Package setup gets what tests, the demo and a first try need, and cannot be had from the Go module proxy: Firecracker and its jailer, a kernel, a base image, and the
// root file system of the lab's host.
//
// There are only two types: [Options] and [Parts]. [Run] makes what is missing; [Find] only looks.
//
//	CACHE/firecracker/VERSION/{firecracker,jailer}
//	CACHE/kernel/current/{vmlinux,vmlinuz}, CACHE/kernel/current/lib/modules/RELEASE
//	CACHE/base/debian-12-SUM.ext4    SUM is of what it is made of
//	CACHE/lab/host-SUM.ext4
//	CACHE/bin/{microvm,microvm-agent}    built by the Makefile
//
// # Caveats
//
// Run needs root, for apt, and a supported system: Debian 12 and 13. What it fetches ends at a pinned sha256, or at the package manager's signature.
//
// Everything appears by rename when it is whole, under a lock: an interrupted Run is continued by the next, and two at once do the work once.
package setup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/flock"
)

// FirecrackerVersion is the version that is fetched.
const FirecrackerVersion = "1.12.1"

// Options say where parts go, and where progress is told. The zero value takes the user's cache and tells nothing.
type Options struct {
	Cache    string    // Optional: see DefaultCache.
	Progress io.Writer // One line a step. Optional.
}

// Parts are the paths of what Run makes.
type Parts struct {
	Cache       string
	Firecracker string
	Jailer      string
	Vmlinux     string
	Vmlinuz     string
	Modules     string // lib/modules/RELEASE
	Base        string
	LabHost     string
	Agent       string // Not made here: by the Makefile.
	Microvm     string // Not made here: by the Makefile.
	Busybox     string // Static; of the host's package.
}

// DefaultCache returns $MICROVM_CACHE, else microvm-runtime in the user's cache directory.
func DefaultCache() (string, error) {
	if dir := os.Getenv("MICROVM_CACHE"); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("cache: %w (set MICROVM_CACHE)", err)
	}
	return filepath.Join(dir, "microvm-runtime"), nil
}

func partsIn(cache string) Parts {
	firecracker := filepath.Join(cache, "firecracker", FirecrackerVersion)
	kernel := filepath.Join(cache, "kernel", "current")
	return Parts{
		Cache:       cache,
		Firecracker: filepath.Join(firecracker, "firecracker"),
		Jailer:      filepath.Join(firecracker, "jailer"),
		Vmlinux:     filepath.Join(kernel, "vmlinux"),
		Vmlinuz:     filepath.Join(kernel, "vmlinuz"),
		Base:        filepath.Join(cache, "base", baseSystem.file()),
		LabHost:     filepath.Join(cache, "lab", labSystem.file()),
		Agent:       filepath.Join(cache, "bin", "microvm-agent"),
		Microvm:     filepath.Join(cache, "bin", "microvm"),
		Busybox:     "/bin/busybox",
	}
}

// ErrMissing is returned by Find when a part is not there.
var ErrMissing = errors.New("not set up")

// Find returns the parts without fetching anything; ErrMissing names the first that is not there.
func Find(cache string) (Parts, error) {
	p := partsIn(cache)
	for _, path := range []string{p.Firecracker, p.Jailer, p.Vmlinux, p.Vmlinuz, p.Base, p.LabHost} {
		if _, err := os.Stat(path); err != nil {
			return p, fmt.Errorf("%w: %s is not there (run: make setup)", ErrMissing, path)
		}
	}
	modules, err := filepath.Glob(filepath.Join(filepath.Dir(p.Vmlinux), "lib", "modules", "*"))
	if err != nil || len(modules) != 1 {
		return p, fmt.Errorf("%w: modules of %s are not there (run: make setup)", ErrMissing, p.Vmlinux)
	}
	p.Modules = modules[0]
	return p, nil
}

// runner is one Run.
type runner struct {
	parts Parts
	out   io.Writer
	begin time.Time
}

// Run makes what is missing. Where it can't go on the error says, in one line, what is wanted, why it can't be had, and what to do.
func Run(ctx context.Context, o Options) (Parts, error) {
	if o.Cache == "" {
		cache, err := DefaultCache()
		if err != nil {
			return Parts{}, err
		}
		o.Cache = cache
	}
	if o.Progress == nil {
		o.Progress = io.Discard
	}
	if err := os.MkdirAll(o.Cache, 0o755); err != nil {
		return Parts{}, fmt.Errorf("setup: %w", err)
	}
	lock, err := flock.Lock(ctx, filepath.Join(o.Cache, "lock"))
	if err != nil {
		return Parts{}, fmt.Errorf("setup: %w", err)
	}
	defer lock.Close()
	r := &runner{parts: partsIn(o.Cache), out: o.Progress, begin: time.Now()}
	for _, step := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"packages", r.packages},
		{"firecracker", r.firecracker},
		{"kernel", r.kernel},
		{"base image", r.base},
		{"lab host", r.labHost},
	} {
		if err := step.run(ctx); err != nil {
			return Parts{}, fmt.Errorf("setup: %s: %w", step.name, err)
		}
	}
	return Find(o.Cache)
}

func (r *runner) say(format string, args ...any) {
	fmt.Fprintf(r.out, "setup %5.1f s  %s\n", time.Since(r.begin).Seconds(), fmt.Sprintf(format, args...))
}

// exists says whether a part is there already; parts appear whole.
func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
