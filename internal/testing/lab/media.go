//go:build linux

package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/tangle-network/microvm-runtime/image"
	"github.com/tangle-network/microvm-runtime/internal/disk"
	"github.com/tangle-network/microvm-runtime/internal/setup"
	"github.com/tangle-network/microvm-runtime/kernel"
)

// modules are what the lab's kernel needs, beyond what is built in.
var modules = []string{
	"virtio_pci", "virtio_blk", "virtio_console", "virtio_rng", "overlay", "kvm_amd", "tun", "veth", "bridge", "loop", "xfs",
	"nf_tables", "nft_chain_nat", "nft_nat", "nft_ct", "nft_masq", "nft_redir", "nft_limit", "nft_connlimit", "nft_fib_inet", "nft_fib_ipv4", "nft_log", "nft_objref", "nft_reject_inet",
	"nfnetlink_log", "nf_conntrack_netlink", // of what we make, nothing loads them on demand
}

// media are files that all labs of a run read, and none writes.
type media struct {
	initrd, parts, payload string // Paths.
}

// makeMedia makes what a run's labs read, in a directory of the run's.
func makeMedia(ctx context.Context, o Options, dir string) (media, error) {
	m := media{initrd: filepath.Join(dir, "initrd"), payload: filepath.Join(dir, "payload.ext4")}
	var err error
	if m.parts, err = partsDisk(ctx, o.Parts, filepath.Join(dir, "parts")); err != nil {
		return m, err
	}
	return m, errors.Join(initramfs(ctx, o.Parts, filepath.Join(dir, "init"), m.initrd), payloadDisk(ctx, o, filepath.Join(dir, "payload"), m.payload))
}

// initramfs builds the lab's first program and packs it with the modules.
func initramfs(ctx context.Context, p setup.Parts, init, path string) error {
	if err := Build(ctx, "github.com/tangle-network/microvm-runtime/internal/testing/lab/cmd/labinit", init); err != nil {
		return err
	}
	tree, err := kernel.OpenModules(p.Modules)
	if err != nil {
		return err
	}
	files, err := tree.Resolve(modules...)
	if err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return kernel.WriteInitramfs(f, kernel.Initramfs{Init: init, Modules: files})
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

// partsDisk packs the parts into a disk, once for as long as they are the same, and returns its path. It collects them in a directory that it makes.
func partsDisk(ctx context.Context, p setup.Parts, tree string) (path string, err error) {
	release := filepath.Base(p.Modules)
	path = filepath.Join(p.Cache, "lab", fmt.Sprintf("parts-%s-%s-%s", setup.FirecrackerVersion, release, filepath.Base(p.Base)))
	if made, err := os.Stat(path); err == nil {
		if base, err := os.Stat(p.Base); err == nil && made.ModTime().After(base.ModTime()) {
			return path, nil
		}
	}
	kernelDir := filepath.Join(tree, "kernel", release)
	firecracker, jailer := stock(tree)
	ourFirecracker, ourJailer := stock(p.Cache)
	for _, dir := range []string{kernelDir, filepath.Dir(firecracker), filepath.Join(tree, "base"), filepath.Join(tree, "lab"), filepath.Join(kernelDir, "lib")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return "", err
		}
	}
	for from, to := range map[string]string{
		ourFirecracker: firecracker, ourJailer: jailer, p.Vmlinux: filepath.Join(kernelDir, "vmlinux"), p.Base: filepath.Join(tree, "base", filepath.Base(p.Base)),
	} {
		if err := disk.LinkOrCopy(ctx, to, resolve(from)); err != nil {
			return "", err
		}
	}
	err = errors.Join(os.WriteFile(filepath.Join(kernelDir, "vmlinuz"), nil, 0o644), os.WriteFile(filepath.Join(tree, "lab", filepath.Base(p.LabHost)), nil, 0o644),
		os.Symlink(release, filepath.Join(tree, "kernel", "current")), os.CopyFS(filepath.Join(kernelDir, "lib", "modules", release), os.DirFS(p.Modules)))
	if err != nil {
		return "", err
	}
	_, err = image.FromDir(ctx, tree, path)
	return path, err
}

func resolve(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	return path
}

// payloadDisk packs the jobs. It collects them in a directory that it makes.
func payloadDisk(ctx context.Context, o Options, tree, path string) error {
	if err := os.Mkdir(tree, 0o755); err != nil {
		return err
	}
	jobs, inside := slices.Clone(o.Jobs), map[string]string{}
	for i, job := range o.Jobs {
		if inside[job.Program] == "" {
			name := strconv.Itoa(i)
			if err := disk.LinkOrCopy(ctx, filepath.Join(tree, name), job.Program); err != nil {
				return err
			}
			inside[job.Program] = filepath.Join(Payload, name)
		}
		jobs[i].Program = inside[job.Program]
	}
	for name, from := range o.Files {
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
	_, err = image.FromDir(ctx, tree, path)
	return err
}
