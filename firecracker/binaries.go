//go:build linux

package firecracker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/firecracker/api"
	"github.com/tangle-network/microvm-runtime/internal/snapstore"
	"github.com/tangle-network/microvm-runtime/internal/state"
)

// program is a firecracker that a run is begun with.
type program struct {
	path    string
	jailer  string // Path of the jailer that it is begun by.
	version api.Version
}

// binary knows the version of the one at path, and asks again when it was replaced.
type binary struct {
	option string // That names it.
	path   string
	jailer string

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
		return api.Version{}, fmt.Errorf("%w: Options.%s: %w (install a Firecracker release)", microvm.ErrInvalid, b.option, err)
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

// binaries are those of the options. The first is what boots.
func binariesOf(o Options) []*binary {
	all := []*binary{{option: "Firecracker", path: o.Firecracker, jailer: o.Jailer}}
	for _, path := range o.Binaries {
		all = append(all, &binary{option: "Binaries", path: path, jailer: o.JailerOf(path)})
	}
	return all
}

// JailerOf returns the path of the jailer for one of Binaries: see there. The options are as Defaults returns them.
func (o Options) JailerOf(binary string) string {
	dir, name := filepath.Split(binary)
	jailer := filepath.Join(dir, strings.Replace(name, "firecracker", "jailer", 1))
	if info, err := os.Stat(jailer); err == nil && info.Mode().IsRegular() && jailer != binary {
		return jailer
	}
	return o.Jailer
}

// program returns what the binary is now.
func (b *binary) program(ctx context.Context) (program, error) {
	version, err := b.ask(ctx)
	return program{path: b.path, jailer: b.jailer, version: version}, err
}

// booting returns what machines boot on.
func (d *driver) booting(ctx context.Context) (program, error) { return d.binaries[0].program(ctx) }

// restoring returns what a snapshot is restored by: the first binary of the version that made it. A binary that can't be asked keeps nobody from the others.
func (d *driver) restoring(ctx context.Context, m *snapstore.Manifest) (program, error) {
	var here []string
	var failed error
	for _, b := range d.binaries {
		p, err := b.program(ctx)
		switch {
		case context.Cause(ctx) != nil:
			return p, context.Cause(ctx)
		case err != nil:
			failed = errors.Join(failed, err)
		case p.version.String() == m.Firecracker:
			return p, nil
		default:
			here = append(here, p.version.String())
		}
	}
	if len(here) == 0 {
		return program{}, failed
	}
	err := misfit(m, "Firecracker", m.Firecracker, strings.Join(here, ", "), "install that version, and name it in Options.Binaries or MICROVM_FIRECRACKER_BINARIES")
	if failed != nil {
		err = fmt.Errorf("%w; %w", err, failed)
	}
	return program{}, err
}

// runsOn returns the version of the VMM that a run is on. Runs of before it was recorded had but one binary.
func (d *driver) runsOn(ctx context.Context, run *state.Run) (api.Version, error) {
	if run != nil && run.Firecracker != "" {
		return api.ParseVersion(run.Firecracker)
	}
	return d.binaries[0].ask(ctx)
}

// executable returns where the binary really is: the jailer names the jail after the file that a link leads to.
func (p program) executable() string {
	if real, err := filepath.EvalSymlinks(p.path); err == nil {
		return real
	}
	return p.path
}
