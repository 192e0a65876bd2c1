//go:build linux

// Package lab runs programs as root on a host that can run real microVMs, also on a machine that can't: a QEMU system emulator with nested AMD virtualisation, in which
// unmodified Firecracker boots an unmodified Linux.
//
// There are only three types: [Options], the [Job]s in them, and [Event], which is what comes back.
//
// # Caveats
//
// It is emulated: about 20 times slower than the machine. What takes time in it says nothing about time elsewhere.
//
// Programs must be static. They see the parts of package setup read-only at [Cache], and their temporary directory is an ext4 disk.
package lab

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/tangle-network/microvm-runtime/image"
	"github.com/tangle-network/microvm-runtime/internal/disk"
	"github.com/tangle-network/microvm-runtime/internal/setup"
	"github.com/tangle-network/microvm-runtime/kernel"
)

const (
	// Cache is where the parts are in the lab: $MICROVM_CACHE.
	Cache = "/parts"
	// Payload is where the jobs' programs and files are.
	Payload = "/payload"
	// Scratch is the temporary directory: $TMPDIR.
	Scratch = "/scratch"
	// Port is the name of the virtio port over which events come.
	Port = "lab.events"
	// Beat is how often the lab says that it lives.
	Beat = time.Second

	defaultTimeout = 10 * time.Minute // of a job

	memoryMiB  = 4096
	layerMiB   = 2048
	scratchMiB = 16384
)

// modules are what the lab's kernel needs, beyond what is built in.
var modules = []string{
	"virtio_pci", "virtio_blk", "virtio_console", "virtio_rng", "overlay", "kvm_amd", "tun", "veth", "bridge", "loop", "xfs",
	"nf_tables", "nft_chain_nat", "nft_nat", "nft_ct", "nft_masq", "nft_redir", "nft_limit", "nft_connlimit", "nft_fib_inet", "nft_fib_ipv4", "nft_log", "nft_objref", "nft_reject_inet",
	"nfnetlink_log", "nf_conntrack_netlink", // of what we make, nothing loads them on demand
}

// Job is one program that runs in the lab.
type Job struct {
	Name    string        `json:"name"`
	Program string        `json:"program"` // Path on this machine.
	Args    []string      `json:"args"`
	Env     []string      `json:"env"`     // Over PATH, HOME, TMPDIR and MICROVM_CACHE.
	Timeout time.Duration `json:"timeout"` // Optional: ten minutes. Then what hangs is told, and killed.
}

// Options say what runs.
type Options struct {
	Parts setup.Parts
	Jobs  []Job             // One after the other.
	Files map[string]string // More files, by path below Payload. Optional.
	Event func(Event)       // Called for everything that comes, in order.
	Log   string            // Path for the console of the lab's kernel. Optional.
}

// Event is something that a job said, or its end.
type Event struct {
	Job  int    `json:"job"`
	Data []byte `json:"data,omitempty"` // Output: standard output and standard error in one.
	Exit *int   `json:"exit,omitempty"` // The job's status; -1 when it was killed.
	Boot string `json:"boot,omitempty"` // The lab runs, after so many seconds of its own clock.
	Beat bool   `json:"beat,omitempty"` // The lab lives: it says so each Beat. Not for Options.Event.
	Lost string `json:"lost,omitempty"` // The emulator has lost a guest: what shows it. Not for Options.Event.
	Halt string `json:"-"`              // Why the lab was given up, in one line. A fresh one runs what had not ended: what Job has said counts for nothing.
}

// Run boots the lab, runs the jobs, and powers it off. A lab whose host stands still, or whose emulator has lost a guest, is killed, and what had not ended
// runs in a fresh one: a job in three at the most.
func Run(ctx context.Context, o Options) error {
	o.Jobs = slices.Clone(o.Jobs)
	for i := range o.Jobs {
		o.Jobs[i].Timeout = cmp.Or(o.Jobs[i].Timeout, defaultTimeout)
	}
	if err := again(ctx, o, once); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	return nil
}

// once runs one lab.
func once(ctx context.Context, o Options) error {
	dir, err := os.MkdirTemp("", "lab-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	l := &lab{Options: o, patience: usualPatience(), dir: dir}
	for _, prepare := range []func(context.Context) error{l.initramfs, l.partsDisk, l.payloadDisk, l.emptyDisks} {
		if err := prepare(ctx); err != nil {
			return err
		}
	}
	return l.run(ctx)
}

type lab struct {
	Options
	patience
	dir       string
	partsPath string
	initPath  string
}

func (l *lab) path(name string) string { return filepath.Join(l.dir, name) }

// initramfs builds the lab's first program and packs it with the modules.
func (l *lab) initramfs(ctx context.Context) error {
	l.initPath = l.path("init")
	if err := Build(ctx, "github.com/tangle-network/microvm-runtime/internal/testing/lab/cmd/labinit", l.initPath); err != nil {
		return err
	}
	tree, err := kernel.OpenModules(l.Parts.Modules)
	if err != nil {
		return err
	}
	files, err := tree.Resolve(modules...)
	if err != nil {
		return err
	}
	f, err := os.Create(l.path("initrd"))
	if err != nil {
		return err
	}
	defer f.Close()
	return kernel.WriteInitramfs(f, kernel.Initramfs{Init: l.initPath, Modules: files})
}

// Build builds a static program of a package.
func Build(ctx context.Context, pkg, path string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", path, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", pkg, err, out)
	}
	return nil
}

// partsDisk packs the parts into a disk, once for as long as they are the same.
func (l *lab) partsDisk(ctx context.Context) error {
	p := l.Parts
	release := filepath.Base(p.Modules)
	l.partsPath = filepath.Join(p.Cache, "lab", fmt.Sprintf("parts-%s-%s-%s", setup.FirecrackerVersion, release, filepath.Base(p.Base)))
	if made, err := os.Stat(l.partsPath); err == nil {
		if base, err := os.Stat(p.Base); err == nil && made.ModTime().After(base.ModTime()) {
			return nil
		}
	}
	tree := l.path("parts")
	kernelDir := filepath.Join(tree, "kernel", release)
	firecracker, jailer := stock(tree)
	ourFirecracker, ourJailer := stock(p.Cache)
	for _, dir := range []string{kernelDir, filepath.Dir(firecracker), filepath.Join(tree, "base"), filepath.Join(tree, "lab"), filepath.Join(kernelDir, "lib")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	for from, to := range map[string]string{
		ourFirecracker: firecracker, ourJailer: jailer, p.Vmlinux: filepath.Join(kernelDir, "vmlinux"), p.Base: filepath.Join(tree, "base", filepath.Base(p.Base)),
	} {
		if err := disk.LinkOrCopy(ctx, to, resolve(from)); err != nil {
			return err
		}
	}
	err := errors.Join(os.WriteFile(filepath.Join(kernelDir, "vmlinuz"), nil, 0o644), os.WriteFile(filepath.Join(tree, "lab", filepath.Base(p.LabHost)), nil, 0o644),
		os.Symlink(release, filepath.Join(tree, "kernel", "current")), os.CopyFS(filepath.Join(kernelDir, "lib", "modules", release), os.DirFS(p.Modules)))
	if err != nil {
		return err
	}
	_, err = image.FromDir(ctx, tree, l.partsPath)
	return err
}

func resolve(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	return path
}

// payloadDisk packs the jobs.
func (l *lab) payloadDisk(ctx context.Context) error {
	tree := l.path("payload")
	if err := os.Mkdir(tree, 0o755); err != nil {
		return err
	}
	jobs, inside := slices.Clone(l.Jobs), map[string]string{}
	for i, job := range l.Jobs {
		if inside[job.Program] == "" {
			name := strconv.Itoa(i)
			if err := disk.LinkOrCopy(ctx, filepath.Join(tree, name), job.Program); err != nil {
				return err
			}
			inside[job.Program] = filepath.Join(Payload, name)
		}
		jobs[i].Program = inside[job.Program]
	}
	for name, from := range l.Files {
		to := filepath.Join(tree, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), disk.LinkOrCopy(ctx, to, resolve(from))); err != nil {
			return err
		}
	}
	text, err := json.Marshal(jobs)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(tree, "jobs.json"), text, 0o644); err != nil {
		return err
	}
	_, err = image.FromDir(ctx, tree, l.path("payload.ext4"))
	return err
}

func (l *lab) emptyDisks(ctx context.Context) error {
	return errors.Join(disk.EmptyExt4(ctx, l.path("layer.ext4"), layerMiB), disk.EmptyExt4(ctx, l.path("scratch.ext4"), scratchMiB))
}
