//go:build linux

package setup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// wanted are the packages that setup, tests and the demo use.
var wanted = []string{
	"busybox-static", "e2fsprogs", "gcc", "iproute2", "kmod", "libc6-dev", "mmdebstrap", "nftables", "python3", "python3-pip", "qemu-system-x86", "strace", "umoci", "xfsprogs",
}

// supported are the systems whose package names are known, by ID and VERSION_ID of os-release(5).
var supported = []string{"debian 12", "debian 13"}

// packages installs what is missing.
func (r *runner) packages(ctx context.Context) error {
	missing, err := missingPackages(ctx)
	if err != nil {
		return err
	}
	if len(missing) == 0 {
		return nil
	}
	text, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return err
	}
	if err := checkSystem(string(text)); err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("%s are not installed and only root can install them (run as root, or: apt-get install %s)", strings.Join(missing, ", "), strings.Join(missing, " "))
	}
	r.say("packages: installing %s", strings.Join(missing, " "))
	if err := r.command(ctx, "", "apt-get", "update", "-q"); err != nil {
		return err
	}
	return r.command(ctx, "", "apt-get", append([]string{"install", "-q", "-y", "--no-install-recommends"}, missing...)...)
}

func missingPackages(ctx context.Context) ([]string, error) {
	var missing []string
	for _, name := range wanted {
		out, err := exec.CommandContext(ctx, "dpkg-query", "-W", "-f", "${Status}", name).Output()
		if errors.Is(err, exec.ErrNotFound) {
			return nil, fmt.Errorf("this system has no dpkg-query (supported: %s)", strings.Join(supported, ", "))
		}
		if err != nil || !strings.HasSuffix(string(out), " installed") {
			missing = append(missing, name)
		}
	}
	return missing, nil
}

// checkSystem refuses a system whose packages have other names, by what /etc/os-release says.
func checkSystem(osRelease string) error {
	values := map[string]string{}
	for line := range strings.Lines(osRelease) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			values[name] = strings.Trim(value, `"'`)
		}
	}
	system := values["ID"] + " " + values["VERSION_ID"]
	if slices.Contains(supported, system) {
		return nil
	}
	return fmt.Errorf("this system is %s, and setup knows the packages of %s (elsewhere install %s by hand, and put vmlinuz, vmlinux and lib/modules/RELEASE of a kernel into CACHE/kernel/current; "+
		"to use the library, your own kernel, modules and image will do: MICROVM_KERNEL, MICROVM_KERNEL_MODULES, MICROVM_IMAGE)",
		system, strings.Join(supported, " and "), strings.Join(wanted, " "))
}

// command runs a program; its output is kept for the error, and that it still works is told every few seconds.
func (r *runner) command(ctx context.Context, dir, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, lookSbin(name), args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C", "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	stop := r.heartbeat(name)
	defer stop()
	if err := cmd.Run(); err != nil {
		text := strings.TrimSpace(out.String())
		if lines := strings.Split(text, "\n"); len(lines) > 5 {
			text = strings.Join(lines[len(lines)-5:], "\n")
		}
		return fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, text)
	}
	return nil
}

// heartbeat tells that a program still works.
func (r *runner) heartbeat(name string) (stop func()) {
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-quit:
				return
			case <-time.After(10 * time.Second):
				r.say("%s works", name)
			}
		}
	}()
	return func() { close(quit); <-done }
}

// lookSbin finds administrators' programs, which are not on everybody's PATH.
func lookSbin(name string) string {
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if path := filepath.Join(dir, name); exists(path) {
			return path
		}
	}
	return name
}
