//go:build linux

package setup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/tangle-network/microvm-runtime/image"
)

// base makes the guests' image: Debian without anything that needs no place in a microVM, and Python to run something in it.
func (r *runner) base(ctx context.Context) error {
	return r.debian(ctx, r.parts.Base, "python3-minimal", "procps")
}

// labHost makes the root file system of the lab's host.
func (r *runner) labHost(ctx context.Context) error {
	return r.debian(ctx, r.parts.LabHost, "e2fsprogs", "iproute2", "kmod", "nftables", "procps", "strace", "xfsprogs")
}

// debian makes an image of Debian 12 with packages. Apt checks their signatures.
func (r *runner) debian(ctx context.Context, path string, packages ...string) error {
	if exists(path) {
		return nil
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("mmdebstrap needs root to make %s (run as root)", path)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	r.say("%s: installing Debian 12 with %s", filepath.Base(path), strings.Join(packages, " "))
	cmd := exec.CommandContext(ctx, lookSbin("mmdebstrap"), "--quiet", "--mode=root", "--variant=minbase", "--include="+strings.Join(packages, ","),
		"--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/locale/*", "--format=tar", "bookworm", "-")
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C", "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	var failure strings.Builder
	cmd.Stderr = &failure
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	stop := r.heartbeat("mmdebstrap")
	defer stop()
	made, err := image.FromTar(ctx, out, path)
	if err := errors.Join(err, cmd.Wait()); err != nil {
		return errors.Join(fmt.Errorf("mmdebstrap: %w: %s", err, strings.TrimSpace(failure.String())), os.RemoveAll(path))
	}
	r.say("%s: %d MiB, sha256 %s", filepath.Base(path), made.Size>>20, made.SHA256)
	return nil
}
