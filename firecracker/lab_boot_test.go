//go:build linux

package firecracker

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/guest"
	"github.com/tangle-network/microvm-runtime/image"
	"github.com/tangle-network/microvm-runtime/internal/testing/busyguest"
)

// What is written goes to the machine's own layer, is there after a stop and a start, and is in no other machine and not in the base.
func TestLabLayer(t *testing.T) {
	r := newLabRig(t, false)
	base := sumOf(t, r.parts.Base)
	vm := r.create(microvm.Spec{})
	r.start(vm)
	sh(t, vm, "echo kept > /root/kept; rm /etc/issue; mkdir /srv/new; echo lost > /run/lost")
	r.stop(vm, microvm.ReasonStopped) // the agent's sync: nothing asked for one
	r.start(vm)
	if got := sh(t, vm, "cat /root/kept; ls -d /srv/new; ls /etc/issue /run/lost 2>/dev/null || echo gone"); got != "kept\n/srv/new\ngone" {
		t.Errorf("after the second start: %q", got)
	}
	info, err := vm.Info(t.Context())
	if err != nil || !info.Agent || !info.Jailed || info.PID == 0 || len(info.Timeline) < 5 {
		t.Errorf("info %+v, %v", info, err)
	}
	other := r.create(microvm.Spec{})
	r.start(other)
	if got := sh(t, other, "cat /root/kept 2>/dev/null; ls /etc/issue"); got != "/etc/issue" {
		t.Errorf("another machine sees %q", got)
	}
	if now := sumOf(t, r.parts.Base); now != base {
		t.Error("the base has changed")
	}
	for _, vm := range []*microvm.VM{vm, other} {
		if err := vm.Destroy(t.Context()); err != nil { // while they run
			t.Error(err)
		}
	}
}

func sumOf(t *testing.T, path string) (sum [32]byte) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return [32]byte(h.Sum(nil))
}

// The agent needs nothing of the image: one program will do, and it need not be a shell.
func TestLabImageWithoutShell(t *testing.T) {
	r := newLabRig(t, false)
	tree, path := t.TempDir(), filepath.Join(t.TempDir(), "image.ext4")
	program, err := os.ReadFile(r.parts.Busybox)
	if err == nil {
		err = os.WriteFile(filepath.Join(tree, "echo"), program, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := image.FromDir(t.Context(), tree, path); err != nil {
		t.Fatal(err)
	}
	vm := r.create(microvm.Spec{Image: path})
	r.start(vm)
	if out, err := guest.Command(vm, "/echo", "all alone").Output(t.Context()); err != nil || string(out) != "all alone\n" {
		t.Errorf("%q, %v", out, err)
	}
	if err := guest.Command(vm, "sh").Run(t.Context()); !errors.Is(err, guest.ErrNotFound) {
		t.Errorf("a shell that is not there: %v", err)
	}
	r.stop(vm, microvm.ReasonStopped)
}

// What can't boot is an error with its cause, well before the agent's deadline, and leaves the machine as it was.
func TestLabCorruptImage(t *testing.T) {
	r := newLabRig(t, false)
	garbage := filepath.Join(t.TempDir(), "garbage.ext4")
	if err := os.WriteFile(garbage, []byte(strings.Repeat("no file system  ", 1<<17)), 0o600); err != nil {
		t.Fatal(err)
	}
	vm := r.create(microvm.Spec{Image: garbage})
	err := vm.Start(t.Context(), &microvm.StartOptions{AgentTimeout: time.Hour})
	if !errors.Is(err, microvm.ErrExited) || !strings.Contains(err.Error(), "microvm-agent: mount /dev/vda") {
		t.Errorf("Start of a garbage image = %v, want ErrExited, and the agent's last words", err)
	}
	if info, err := vm.Info(t.Context()); err != nil || info.State != microvm.StateCreated || info.Exit != nil || info.PID != 0 {
		t.Errorf("info %+v, %v", info, err)
	}
}

// ownInitrd boots a root file system by an initial RAM file system of the user's own: Debian's kernel has its disks' drivers in modules.
func (r *labRig) ownInitrd(script string) string {
	r.t.Helper()
	path := filepath.Join(r.t.TempDir(), "initrd")
	err := busyguest.WriteInitrd(path, busyguest.Guest{Busybox: r.parts.Busybox, Modules: r.parts.Modules, Load: []string{"virtio_mmio", "virtio_blk", "ext4"}, Script: script})
	if err != nil {
		r.t.Fatal(err)
	}
	return path
}

const switchRoot = "mount -o ro /dev/vda /root && exec switch_root /root /sbin/init\n"

// With a kernel and a root file system of the user's own, as the environment names them, a machine needs no agent. Its own init takes Ctrl-Alt-Del.
func TestLabOwnInit(t *testing.T) {
	r := newLabRig(t, false)
	rootfs := filepath.Join(t.TempDir(), "rootfs.ext4")
	err := busyguest.WriteRootfs(t.Context(), rootfs, r.parts.Busybox, map[string]string{
		"etc/inittab": "::sysinit:/etc/rc\n::ctrlaltdel:/etc/bye\n",
		"etc/rc":      "#!/bin/sh\nbusybox mount -t proc proc /proc\necho this init is number $(busybox pidof init), not an agent\n",
		"etc/bye":     "#!/bin/sh\necho ctrl-alt-del came\nbusybox reboot\n",
	})
	if err != nil {
		t.Fatal(err)
	}
	r.fromEnv(map[string]string{"MICROVM_FIRECRACKER_KERNEL": r.parts.Vmlinux, "MICROVM_FIRECRACKER_ROOTFS": rootfs})
	vm := r.create(microvm.Spec{Initrd: r.ownInitrd(switchRoot)})
	r.start(vm)
	r.await(vm, "this init is number 1, not an agent")
	if info, err := vm.Info(t.Context()); err != nil || info.Agent || info.Spec.Rootfs != rootfs || !info.Jailed {
		t.Errorf("info %+v, %v", info, err)
	}
	asking, cancel := context.WithTimeout(t.Context(), time.Second) // without a driver for it nobody would ever answer
	defer cancel()
	if health, err := guest.GetHealth(asking, vm); err == nil {
		t.Errorf("an agent answers where there is none: %+v", health)
	}
	r.stop(vm, microvm.ReasonStopped)
	if console := r.console(vm); !strings.Contains(console, "ctrl-alt-del came") {
		t.Errorf("console:\n%s", console)
	}
}

// fromEnv opens a runtime that is told as little as the environment tells it.
func (r *labRig) fromEnv(variables map[string]string) {
	r.t.Helper()
	o, err := OptionsFromEnv(func(name string) (string, bool) {
		value, ok := variables[name]
		return value, ok
	})
	if err != nil {
		r.t.Fatal(err)
	}
	o.Firecracker, o.Jailer, o.StateDir, o.SocketDir, o.Slice = r.options.Firecracker, r.options.Jailer, r.options.StateDir, r.options.SocketDir, r.options.Slice
	r.options = o
	if err := r.runtime.Close(); err != nil {
		r.t.Fatal(err)
	}
	r.open()
}

// A kernel that panics for want of a root or of an init resets the machine, as panic=1 has it: the guest's own end.
func TestLabMissingInit(t *testing.T) {
	r := newLabRig(t, false)
	initrd := r.ownInitrd(switchRoot)
	for name, spec := range map[string]microvm.Spec{
		"no driver for the root": {Rootfs: r.parts.Base},
		"no init in the initrd":  {Diskless: true, Initrd: initrd, KernelArgs: "rdinit=/none"},
		"no init in the rootfs":  {Rootfs: r.parts.Base, Initrd: initrd},
	} {
		t.Run(name, func(t *testing.T) {
			vm := r.create(spec)
			if err := vm.Start(t.Context(), nil); err != nil {
				t.Fatal(err)
			}
			r.waitFor(vm, microvm.ReasonGuest)
			if console := r.console(vm); !strings.Contains(console, "panic") {
				t.Errorf("console:\n%s", console)
			}
		})
	}
}
