//go:build linux

package firecracker

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/jail"
	"github.com/tangle-network/microvm-runtime/internal/testing/leak"
	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
	"github.com/tangle-network/microvm-runtime/internal/testing/tinyguest"
)

// jailedRig has one jailed machine that runs, and where its jail is.
func jailedRig(t *testing.T) (r *rig, vm *microvm.VM, root string) {
	t.Helper()
	r = newRig(t, ring.Real(t), false, tinyguest.Program{Text: marker + "\n"})
	vm = r.create("one")
	r.start(vm)
	return r, vm, filepath.Join(r.options.StateDir, "jails", "firecracker", vm.UID(), "root")
}

func TestRealJailedVMMHasNothing(t *testing.T) {
	r, vm, root := jailedRig(t)
	pid := r.info(vm).PID
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	user := fmt.Sprint(defaultFirstUID)
	fields := map[string]string{}
	for line := range strings.Lines(string(status)) {
		key, value, _ := strings.Cut(line, ":")
		fields[key] = strings.Join(strings.Fields(value), " ")
	}
	for key, want := range map[string]string{
		"CapEff": "0000000000000000", "CapPrm": "0000000000000000", "Seccomp": "2", "NSpid": fmt.Sprintf("%d 1", pid),
		"Uid": strings.Join([]string{user, user, user, user}, " "), "Gid": strings.Join([]string{user, user, user, user}, " "),
	} {
		if fields[key] != want {
			t.Errorf("%s %q, want %q", key, fields[key], want)
		}
	}
	if got, err := os.Readlink(fmt.Sprintf("/proc/%d/root", pid)); err != nil || got != root {
		// The jailer pivots into the jail: seen from outside, its root is "/" of another mount namespace.
		if mine, theirs := namespace(t, os.Getpid(), "mnt"), namespace(t, pid, "mnt"); got != "/" || mine == theirs {
			t.Errorf("root %s, %v, mount namespace %s of %s", got, err, theirs, mine)
		}
	}
	if pids := r.pids(vm.UID()); len(pids) != 1 || pids[0] != pid {
		t.Errorf("processes %v in the leaf, want %d", pids, pid)
	}
	environment, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil || len(environment) > 0 {
		t.Errorf("environment %q, %v", environment, err)
	}
	descriptors, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range descriptors {
		to, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, entry.Name()))
		if strings.HasPrefix(to, r.options.StateDir) && !strings.HasPrefix(to, root) {
			t.Errorf("it holds %s", to)
		}
	}
}

func namespace(t *testing.T, pid int, kind string) string {
	t.Helper()
	name, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, kind))
	if err != nil {
		t.Fatal(err)
	}
	return name
}

func TestRealJailHoldsWhatIsDocumented(t *testing.T) {
	_, _, root := jailedRig(t)
	user := defaultFirstUID
	for name, want := range map[string]struct {
		mode fs.FileMode
		uid  int
	}{
		".":               {fs.ModeDir | 0o700, user},
		"img":             {fs.ModeDir | 0o755, 0},
		"img/kernel":      {0o444, 0},
		"img/vm.json":     {0o444, 0},
		"firecracker.log": {0o600, user},
		"api.sock":        {fs.ModeSocket | 0o755, user},
		"vsock.sock":      {fs.ModeSocket | 0o755, user},
	} {
		info, err := os.Lstat(filepath.Join(root, name))
		if err != nil {
			t.Error(err)
			continue
		}
		if uid := int(info.Sys().(*syscall.Stat_t).Uid); info.Mode() != want.mode || uid != want.uid {
			t.Errorf("%s: %v of %d, want %v of %d", name, info.Mode(), uid, want.mode, want.uid)
		}
	}
}

// overwritten runs the jailer a second time over a jail in which the VMM's user has renamed a shared file to the binary's name, and says whether the shared
// file was overwritten.
func overwritten(t *testing.T, layout jail.Layout, jailer, shared, inJail string, uid int) bool {
	t.Helper()
	before, err := os.ReadFile(shared)
	if err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(layout.Root(), filepath.Base(layout.Exec))
	attack := exec.Command("/bin/sh", "-c", `rm -f "$2"; mv "$1" "$2"`, "sh", inJail, binary)
	attack.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	out, moved := attack.CombinedOutput()
	t.Logf("the VMM's user renames %s: %v %s", inJail, moved, out)
	again := layout.Command(jailer, uid, uid, 64<<20, "--version")
	out, err = exec.Command(again.Path, again.Args...).CombinedOutput() // the machine's next start, without what we do before it
	t.Logf("the jailer runs again: %v %.200s", err, out)
	after, err := os.ReadFile(shared)
	if err != nil {
		t.Fatal(err)
	}
	return !bytes.Equal(before, after)
}

// TestRealJailTakeOver: a VMM that was broken into renames a shared file to the binary's name, and the next run of the jailer copies the binary as root into it.
// It works on a jail with hard links beside the VMM's own files, with jailers before 1.13.2; it must not work on ours.
func TestRealJailTakeOver(t *testing.T) {
	p := ring.Real(t)
	t.Run("naive", func(t *testing.T) {
		dir, err := os.MkdirTemp("", "microvm-naive-") // others must be able to walk to it
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		layout := jail.Layout{Base: filepath.Join(dir, "jails"), Exec: p.Firecracker, ID: "naive"}
		shared := filepath.Join(dir, "base")
		root := layout.Root()
		errs := []error{os.MkdirAll(root, 0o755), os.WriteFile(shared, []byte("the base image of every machine"), 0o444), os.Link(shared, filepath.Join(root, "base")),
			os.Chown(root, defaultFirstUID, defaultFirstUID)}
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
		version, err := BinaryVersion(t.Context(), p.Jailer)
		if err != nil {
			t.Fatal(err)
		}
		if !overwritten(t, layout, p.Jailer, shared, filepath.Join(root, "base"), defaultFirstUID) && fmt.Sprint(version) == "1.12.1" {
			t.Error("the attack does not work where it should: this test shows nothing")
		}
	})
	t.Run("ours", func(t *testing.T) {
		r, vm, root := jailedRig(t)
		kernel, layout := r.sharedKernel(vm), jail.Layout{Base: filepath.Join(r.options.StateDir, "jails"), Exec: p.Firecracker, ID: vm.UID()}
		before, err := os.ReadFile(kernel)
		if err != nil {
			t.Fatal(err)
		}
		for _, walk := range []string{r.options.StateDir, filepath.Dir(r.options.StateDir), filepath.Join(r.options.StateDir, "jails"), layout.Dir(), filepath.Dir(layout.Dir())} {
			if err := os.Chmod(walk, 0o755); err != nil { // as if it walked from within
				t.Fatal(err)
			}
		}
		if overwritten(t, layout, p.Jailer, kernel, filepath.Join(root, "img", "kernel"), defaultFirstUID) {
			t.Error("the shared kernel was overwritten")
		}
		if overwritten(t, layout, p.Jailer, kernel, filepath.Join(root, "img"), defaultFirstUID) {
			t.Error("the shared kernel was overwritten")
		}
		if err := os.Chmod(r.options.StateDir, 0o700); err != nil {
			t.Fatal(err)
		}
		// What a VMM can do is to put a link there that it made itself.
		planted := filepath.Join(root, "firecracker")
		os.RemoveAll(planted)
		if err := os.Symlink(kernel, planted); err != nil {
			t.Fatal(err)
		}
		if _, err := vm.Stop(t.Context(), &microvm.StopOptions{Force: true}); err != nil {
			t.Fatal(err)
		}
		r.start(vm)
		after, err := os.ReadFile(kernel)
		if err != nil || !bytes.Equal(before, after) {
			t.Errorf("the shared kernel was overwritten by the next start: %v", err)
		}
		r.destroy(vm)
	})
}

// sharedKernel returns the store's file that the machine boots.
func (r *rig) sharedKernel(vm *microvm.VM) string {
	r.t.Helper()
	record, err := r.driver.state.ReadRecord(vm.UID())
	if err != nil {
		r.t.Fatal(err)
	}
	return record.Files.Kernel
}

// TestRealJailIsNotTrusted: what a broken VMM puts in place of its sockets and its log is refused, and harms nobody.
func TestRealJailIsNotTrusted(t *testing.T) {
	r, vm, root := jailedRig(t)
	if err := vm.Pause(t.Context()); err != nil { // with what the VMM made, it works
		t.Fatal(err)
	}
	outside := filepath.Join(t.TempDir(), "precious")
	if err := os.WriteFile(outside, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	victim, err := net.Listen("unix", outside+".sock") // root's own service
	if err != nil {
		t.Fatal(err)
	}
	defer victim.Close()
	for name, to := range map[string]string{"api.sock": outside + ".sock", "vsock.sock": outside + ".sock", "firecracker.log": outside, "layer": outside} {
		path := filepath.Join(root, name)
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(to, path); err != nil {
			t.Fatal(err)
		}
	}
	if err := vm.Resume(t.Context()); !errors.Is(err, jail.ErrHostile) {
		t.Errorf("resume through a link: %v", err)
	}
	if _, err := vm.Dial(t.Context(), 1); !errors.Is(err, jail.ErrHostile) {
		t.Errorf("dial through a link: %v", err)
	}
	if log := r.driver.vmmLog(must(r.driver.state.ReadRecord(vm.UID()))); strings.Contains(log, "precious") {
		t.Error("the log was read through a link")
	}
	if err := os.Remove(filepath.Join(root, "api.sock")); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(outside+".sock", filepath.Join(root, "api.sock")); err != nil { // a socket, but root's
		t.Fatal(err)
	}
	if err := vm.Resume(t.Context()); !errors.Is(err, jail.ErrHostile) {
		t.Errorf("resume by another's socket: %v", err)
	}
	hostile(t, root, filepath.Dir(outside))
	r.destroy(vm)
	if text, err := os.ReadFile(outside); err != nil || string(text) != "precious" {
		t.Errorf("Destroy followed a link: %q, %v", text, err)
	}
	if exists(filepath.Dir(root)) {
		t.Error("the jail is still there")
	}
}

func must[T any](value T, err error) *T {
	if err != nil {
		panic(err)
	}
	return &value
}

// hostile fills a jail with what is hard to remove without following it.
func hostile(t *testing.T, root, outside string) {
	t.Helper()
	errs := []error{os.Symlink(outside, filepath.Join(root, "dir")), os.Symlink("/", filepath.Join(root, "slash")), os.Symlink("loop", filepath.Join(root, "loop")),
		syscall.Mkfifo(filepath.Join(root, "fifo"), 0o600), os.WriteFile(filepath.Join(root, "-rf"), nil, 0), os.WriteFile(filepath.Join(root, "new\nline"), nil, 0)}
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	at, err := os.OpenRoot(root)
	if err != nil {
		t.Fatal(err)
	}
	for range 30 { // in all a path longer than PATH_MAX
		below, err := deeper(at, strings.Repeat("x", 200))
		at.Close()
		if err != nil {
			t.Fatal(err)
		}
		at = below
	}
	at.Close()
}

func deeper(at *os.Root, name string) (*os.Root, error) {
	if err := at.Mkdir(name, 0o700); err != nil {
		return nil, err
	}
	return at.OpenRoot(name)
}

// TestRealJailedLimits: what a VMM writes is bounded by what it needs.
func TestRealJailedLimits(t *testing.T) {
	p := ring.Real(t)
	r := newRig(t, p, false, tinyguest.Program{Text: marker + "\n"})
	vm := r.create("one")
	defer r.destroy(vm)
	r.start(vm)
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", r.info(vm).PID))
	if err != nil {
		t.Fatal(err)
	}
	limits := strings.Join(strings.Fields(string(text)), " ")
	for _, want := range []string{fmt.Sprintf("Max file size %d %[1]d bytes", (128+64)<<20)} {
		if !strings.Contains(limits, want) {
			t.Errorf("no %q in %s", want, text)
		}
	}
}

// TestHostJailDirectory: a file system on which no jail works is refused at once, with its remedy; the same one mounted otherwise is not.
func TestHostJailDirectory(t *testing.T) {
	ring.Host(t)
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "mode=0700"); err != nil {
		t.Fatal(err)
	}
	defer syscall.Unmount(dir, 0)
	o := Options{StateDir: filepath.Join(dir, "state"), SocketDir: filepath.Join(dir, "run"), Slice: leak.Slice(filepath.Base(dir))}
	for flags, refused := range map[uintptr]string{0: "", syscall.MS_NODEV: "nodev or noexec", syscall.MS_NOEXEC: "nodev or noexec"} {
		if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT|flags, ""); err != nil {
			t.Fatal(err)
		}
		rt, err := New(o)
		if refused == "" {
			if err != nil {
				t.Errorf("a good one: %v", err)
			} else if err := rt.Close(); err != nil {
				t.Error(err)
			}
			continue
		}
		if !errors.Is(err, microvm.ErrInvalid) || !strings.Contains(err.Error(), "Options.JailDir") || !strings.Contains(err.Error(), refused) {
			t.Errorf("flags %x: %v", flags, err)
		}
	}
	o.JailDir = filepath.Join(t.TempDir(), "jails") // another file system
	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := New(o); !errors.Is(err, microvm.ErrInvalid) || !strings.Contains(err.Error(), "file system of StateDir") {
		t.Errorf("jails elsewhere: %v", err)
	}
	if _, err := Purge(t.Context(), Options{StateDir: o.StateDir, SocketDir: o.SocketDir, Slice: o.Slice}); err != nil {
		t.Error(err)
	}
}
