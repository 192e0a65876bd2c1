//go:build linux

package firecracker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/tangle-network/microvm-runtime/internal/jail"
	"github.com/tangle-network/microvm-runtime/internal/state"
	"github.com/tangle-network/microvm-runtime/internal/vmm"
)

// place is where one run of a VMM lives: a jail, or, bare, a directory. Inside, both look the same.
type place interface {
	// make makes it in place of the last run's.
	make(ctx context.Context, c contents) error
	// command returns how the VMM is started in it.
	command(c contents) vmm.Command
	// remove removes it, if it is there.
	remove() error
	// dir returns what the VMM sees as its root, or works in.
	dir() string
	// dial connects to one of the VMM's sockets.
	dial(ctx context.Context, name string) (net.Conn, error)
	// listen makes a socket that the VMM can connect to. The name goes with the place.
	listen(name string) (net.Listener, error)
	// openLog opens the VMM's log.
	openLog() (*os.File, error)
	// outlet returns the name that the VMM is told for a file that it is to write and that is to be at path, outside, once it is taken.
	outlet(name, path string) string
	// take brings a file that the VMM has written to path. No VMM can write to it any more.
	take(name, path string) error
	// discard removes what the VMM has written, or begun to write, and was not taken.
	discard(name string) error
}

// contents are what a run finds in its place beside the machine's own.
type contents struct {
	program program           // What the VMM is.
	config  []byte            // The configuration file. Nil where there is none.
	shared  map[string]string // What is below img/: names to files that no VMM may write to.
}

func (d *driver) place(r *state.Record) place {
	dir := d.state.Sockets(r.UID)
	layer := ""
	if hasDisk(&r.Spec) {
		layer = d.diskPath(r.UID)
	}
	if !r.Jailed {
		return &bare{path: dir, record: r, layer: layer, lent: d.openLent}
	}
	uid, gid := d.jailUser(r)
	layout := jail.Layout{Base: d.options.JailDir, Exec: program{path: d.options.Firecracker}.executable(), ID: r.UID}
	return &jailed{layout: layout, link: dir, record: r, layer: layer, uid: uid, gid: gid, lent: d.openLent}
}

// jailUser returns whom the machine's VMM runs as in its jail.
func (d *driver) jailUser(r *state.Record) (uid, gid int) {
	if r.JailUID != 0 {
		return r.JailUID, r.JailGID
	}
	slot := d.slots.Slot(r.Slot)
	return slot.UID, slot.GID
}

// sharedFiles returns what is below img/: names to paths in the store.
func sharedFiles(r *state.Record) map[string]string {
	files := map[string]string{filepath.Base(kernelPath): r.Files.Kernel}
	if r.Files.Initrd != "" {
		files[filepath.Base(initrdPath)] = r.Files.Initrd
	}
	if r.Files.Base != "" && !r.Spec.RootfsWritable {
		files[filepath.Base(basePath)] = r.Files.Base
	}
	for i, path := range r.Files.Drives {
		if path != "" {
			files[drivePath(i)] = path
		}
	}
	return files
}

// firecrackerArgs are the VMM's arguments but for its id, which the jailer adds itself. Without a configuration file it waits for what it is told.
func firecrackerArgs(c contents) []string {
	args := []string{"--api-sock", socketPath, "--log-path", logPath, "--level", "Info"}
	if c.config != nil {
		args = append(args, "--config-file", configPath)
	}
	return args
}

// bare is a directory that the VMM works in, as this process's user.
type bare struct {
	path   string
	record *state.Record
	layer  string
	lent   func(*state.Record) (lentThings, error)
}

func (b *bare) make(_ context.Context, c contents) error {
	if err := b.remove(); err != nil {
		return err
	}
	lent, err := b.lent(b.record)
	if err != nil {
		return err
	}
	defer lent.Close()
	img := filepath.Join(b.path, "img")
	errs := []error{os.Mkdir(b.path, 0o700), os.Mkdir(img, 0o700)}
	for name, path := range c.shared { // symbolic: the directory is on tmpfs, the store is not
		errs = append(errs, os.Symlink(path, filepath.Join(img, name)))
	}
	if b.layer != "" {
		errs = append(errs, os.Symlink(b.layer, filepath.Join(b.path, layerPath)))
	}
	for name, thing := range lent {
		errs = append(errs, os.Symlink(thing.Path, filepath.Join(b.path, name)))
	}
	if c.config != nil {
		errs = append(errs, os.WriteFile(filepath.Join(b.path, configPath), c.config, 0o600))
	}
	errs = append(errs, os.WriteFile(filepath.Join(b.path, logPath), nil, 0o600))
	return errors.Join(errs...)
}

func (b *bare) command(c contents) vmm.Command {
	return vmm.Command{Path: c.program.path, Args: append([]string{"--id", b.record.UID}, firecrackerArgs(c)...), Dir: b.path}
}

func (b *bare) remove() error { return os.RemoveAll(b.path) }

func (b *bare) dir() string { return b.path }

func (b *bare) dial(ctx context.Context, name string) (net.Conn, error) {
	return jail.Dial(ctx, b.path, name, os.Geteuid())
}

func (b *bare) listen(name string) (net.Listener, error) {
	return jail.Listen(b.path, name, os.Geteuid(), os.Getegid())
}

func (b *bare) openLog() (*os.File, error) { return jail.OpenFile(b.path, logPath, os.Geteuid()) }

// outlet: its directory is on tmpfs, where no memory should go; and it can write anywhere.
func (b *bare) outlet(_, path string) string { return path }

func (b *bare) take(string, string) error { return nil }

func (b *bare) discard(string) error { return nil }

// jailed is a jail of the official jailer's, and a link to its root where bare machines have their directory.
type jailed struct {
	layout   jail.Layout // for Options.Firecracker; a run is in that of its own program
	link     string
	record   *state.Record
	layer    string
	uid, gid int
	lent     func(*state.Record) (lentThings, error)
}

func (j *jailed) make(ctx context.Context, c contents) error {
	if err := j.remove(); err != nil {
		return err
	}
	lent, err := j.lent(j.record)
	if err != nil {
		return err
	}
	defer lent.Close()
	files := jail.Files{Shared: c.shared, Config: c.config, Layer: j.layer, Lent: lent.files(), Log: logPath, UID: j.uid, GID: j.gid}
	layout := j.layoutFor(c.program)
	if err := layout.Build(ctx, files); err != nil {
		return fmt.Errorf("build jail: %w", err)
	}
	return os.Symlink(layout.Root(), j.link)
}

func (j *jailed) command(c contents) vmm.Command {
	return j.layoutFor(c.program).Command(c.program.jailer, j.uid, j.gid, maxFile(j.record), firecrackerArgs(c)...)
}

// layoutFor returns where the jail is when the VMM is this program.
func (j *jailed) layoutFor(p program) jail.Layout {
	layout := j.layout
	layout.Exec = p.executable()
	return layout
}

// maxFile returns the size in bytes of the largest file that the VMM may have to write: its disk, a drive, or the guest's memory in a snapshot. One that was broken into
// fills the host's disk no further.
func maxFile(r *state.Record) int64 {
	const beside = 64 << 20 // for its log, and what a snapshot has beside the memory
	return max(int64(max(r.Spec.MemoryMiB, diskMiB(r)))<<20, lentBytes(r)) + beside
}

func (j *jailed) remove() error {
	return errors.Join(os.RemoveAll(j.link), j.layout.Remove())
}

func (j *jailed) dir() string { return j.root() }

// root returns where the present jail's root is. The jailer puts jails below the binary's name, which may have become another since the VMM was started.
func (j *jailed) root() string {
	if root, err := os.Readlink(j.link); err == nil {
		return root
	}
	return j.layout.Root()
}

func (j *jailed) dial(ctx context.Context, name string) (net.Conn, error) {
	return jail.Dial(ctx, j.root(), name, j.uid)
}

func (j *jailed) listen(name string) (net.Listener, error) {
	return jail.Listen(j.root(), name, j.uid, j.gid)
}

func (j *jailed) openLog() (*os.File, error) { return jail.OpenFile(j.root(), logPath, j.uid) }

func (j *jailed) outlet(name, _ string) string { return name }

func (j *jailed) discard(name string) error { return jail.Discard(j.root(), name) }

func (j *jailed) take(name, path string) error { return jail.Take(j.root(), name, j.uid, path) }
