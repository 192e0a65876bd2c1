//go:build linux

package setup

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/tangle-network/microvm-runtime/image"
)

// system is a Debian with packages.
type system struct {
	name     string
	packages []string
}

var (
	// baseSystem is the guests': without anything that needs no place in a microVM, and with Python to run something in it.
	baseSystem = system{"debian-12", []string{"python3-minimal", "procps"}}
	// labSystem is that of the lab's host.
	labSystem = system{"host", []string{"e2fsprogs", "iproute2", "kmod", "nftables", "procps", "strace", "xfsprogs"}}
)

// arguments are what mmdebstrap makes the system's files with. Apt checks the packages' signatures.
func (s system) arguments() []string {
	return []string{
		"--quiet", "--mode=root", "--variant=minbase", "--include=" + strings.Join(s.packages, ","), "--dpkgopt=path-exclude=/usr/share/doc/*",
		"--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/locale/*", "--format=tar", "bookworm", "-",
	}
}

// imageFormat counts the ways in which images were made of the same files.
const imageFormat = 2

// file returns the name of the system's image. What it is made of is part of it: an image of another list of packages is another one.
func (s system) file() string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d\x00%q", imageFormat, s.arguments()))
	return fmt.Sprintf("%s-%x.ext4", s.name, sum[:4])
}

func (r *runner) base(ctx context.Context) error { return r.debian(ctx, r.parts.Base, baseSystem) }

func (r *runner) labHost(ctx context.Context) error { return r.debian(ctx, r.parts.LabHost, labSystem) }

// debian makes the image of a system.
func (r *runner) debian(ctx context.Context, path string, s system) error {
	if exists(path) {
		return nil
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("mmdebstrap needs root to make %s (run as root)", path)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	r.say("%s: installing Debian 12 with %s", filepath.Base(path), strings.Join(s.packages, " "))
	cmd := exec.CommandContext(ctx, lookSbin("mmdebstrap"), s.arguments()...)
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
	if err == nil {
		_, err = io.Copy(io.Discard, out) // what fills the tar's last block
	}
	out.Close() // a program that nobody listens to any more ends
	if err := errors.Join(err, cmd.Wait()); err != nil {
		return errors.Join(fmt.Errorf("mmdebstrap: %w: %s", err, strings.TrimSpace(failure.String())), os.RemoveAll(path))
	}
	r.say("%s: %d MiB, sha256 %s", filepath.Base(path), made.Size>>20, made.SHA256)
	return nil
}
