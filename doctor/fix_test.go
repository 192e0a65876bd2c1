//go:build linux

package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/tangle-network/microvm-runtime/firecracker"
	"github.com/tangle-network/microvm-runtime/internal/disk"
	"github.com/tangle-network/microvm-runtime/internal/testing/loopfs"
	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
	"github.com/tangle-network/microvm-runtime/internal/unix"
)

// fixing is this host with a state directory on an ext4 of the test's own.
type fixing struct {
	t *testing.T
	host
	options Options
	dir     string // The state directory.
	image   string // That its store is in.
}

func newFixing(t *testing.T) *fixing {
	t.Helper()
	f := &fixing{t: t, host: thisHost()}
	f.root = t.TempDir() // its fstab
	if err := os.Mkdir(f.path("/etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	f.dir = filepath.Join(loopfs.Mount(t, loopfs.Ext4, 1024), "a b", "state")
	f.image = f.dir + ".xfs"
	f.options = Options{Driver: firecracker.Options{StateDir: f.dir}, StoreMiB: 400}
	t.Cleanup(func() {
		for f.mounts() > 0 {
			f.command("umount", f.dir)
		}
	})
	return f
}

// fix makes a fix and says what must come of it.
func (f *fixing) fix(severity Severity, words string) Finding {
	f.t.Helper()
	report := fix(f.t.Context(), f.host, f.options)
	checkReport(f.t, report)
	if len(report) != 1 || report[0].Severity != severity || !strings.Contains(report[0].Evidence, words) {
		f.t.Fatalf("%+v, want %s with %q", report, severity, words)
	}
	return report[0]
}

func (f *fixing) command(name string, args ...string) {
	f.t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		f.t.Fatalf("%s %s: %v: %s", name, args, err, out)
	}
}

// mounts is how often something is mounted at the state directory.
func (f *fixing) mounts() (n int) {
	f.t.Helper()
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		f.t.Fatal(err)
	}
	return strings.Count(string(text), " "+strings.ReplaceAll(f.dir, " ", `\040`)+" ")
}

// untouched fails the test when there is a store, or a part of one.
func (f *fixing) untouched() {
	f.t.Helper()
	images, err := filepath.Glob(f.image + "*")
	if err != nil || len(images) > 0 || f.mounts() > 0 {
		f.t.Fatalf("there is %q, and %d mounts: %v", images, f.mounts(), err)
	}
}

func (f *fixing) reflink() Finding { return checkReflink(f.t.Context(), f.host, f.options.Driver)[0] }

// shares fails the test unless a file of the state directory is cloned without a copy.
func (f *fixing) shares() {
	f.t.Helper()
	source, clone := filepath.Join(f.dir, "source"), filepath.Join(f.dir, "clone")
	if err := os.WriteFile(source, make([]byte, 1<<20), 0o600); err != nil {
		f.t.Fatal(err)
	}
	cloned, err := disk.Clone(f.t.Context(), clone, source)
	if err != nil || !cloned.Reflinked {
		f.t.Errorf("clone %+v, %v", cloned, err)
	}
}

// private runs a test in a mount namespace of its own.
func private(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	ring.Host(t)
	if loopfs.Private(t) {
		test(t)
	}
}

// TestHostFixMakesAStore: what the check finds is mended, for good once the line is in fstab, and nothing is done twice.
func TestHostFixMakesAStore(t *testing.T) {
	private(t, func(t *testing.T) {
		f := newFixing(t)
		if got := f.reflink(); got.Severity != Warning || !strings.Contains(got.Remedy, "--fix") {
			t.Errorf("before: %+v", got)
		}
		made := f.fix(Warning, "made and mounted")
		if got := f.reflink(); got.Severity != OK {
			t.Errorf("after: %+v", got)
		}
		f.shares()
		info, err := os.Stat(f.image)
		if err != nil {
			t.Fatal(err)
		}
		if stat := info.Sys().(*syscall.Stat_t); info.Size() != 400<<20 || stat.Blocks*512 < info.Size() || info.Mode() != 0o600 {
			t.Errorf("%d bytes, %d of them allocated, mode %v", info.Size(), stat.Blocks*512, info.Mode())
		}
		if root, err := os.Stat(f.dir); err != nil || root.Mode().Perm() != 0o700 {
			t.Errorf("the state directory: %v, %v", root.Mode(), err)
		}
		f.fix(Warning, "can share blocks; a reboot")

		f.command("umount", f.dir) // as a reboot does
		f.fix(Warning, ".xfs was mounted at")
		if _, err := os.Stat(filepath.Join(f.dir, "clone")); err != nil {
			t.Errorf("it is another store: %v", err)
		}

		_, line, _ := strings.Cut(made.Remedy, ": ")
		if err := os.WriteFile(f.path("/etc/fstab"), []byte("# "+line+"\nproc /proc proc\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		f.fix(Warning, "a reboot") // a comment is none
		if err := os.WriteFile(f.path("/etc/fstab"), []byte("proc /proc proc\n"+line+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		f.fix(OK, "is in /etc/fstab")
		f.command("umount", f.dir)
		f.command("mount", "--fstab", f.path("/etc/fstab"), "--target", f.dir)
		if _, err := os.Stat(filepath.Join(f.dir, "clone")); err != nil || f.mounts() != 1 {
			t.Errorf("the line mounts something else, %d times: %v", f.mounts(), err)
		}
	})
}

// TestHostFixTouchesNoMachine: with anything in the state directory nothing is done, and the commands that are told move it.
func TestHostFixTouchesNoMachine(t *testing.T) {
	private(t, func(t *testing.T) {
		f := newFixing(t)
		layer, link := filepath.Join(f.dir, "machines", "a", "layer"), filepath.Join(f.dir, "machines", "a", "link")
		if err := errors.Join(os.MkdirAll(filepath.Dir(layer), 0o700), os.WriteFile(layer, []byte("data"), 0o600), os.Truncate(layer, 64<<20), os.Link(layer, link)); err != nil {
			t.Fatal(err)
		}
		refused := f.fix(Warning, "is not empty")
		f.untouched()
		for i, told := range strings.Split(refused.Remedy, "`") {
			switch {
			case i%2 == 0 || strings.HasPrefix(told, "microvm ls"):
			case told == "microvm doctor --fix":
				f.fix(Warning, "made and mounted")
			default:
				f.command("sh", "-ec", told)
			}
		}
		text, err := os.ReadFile(layer)
		if err != nil || string(text[:4]) != "data" || len(text) != 64<<20 || disk.Used(layer) > 1<<20 {
			t.Errorf("%d bytes, %d of them on the disk: %v", len(text), disk.Used(layer), err)
		}
		if info, err := os.Stat(link); err != nil || info.Sys().(*syscall.Stat_t).Nlink != 2 {
			t.Errorf("its link: %v", err)
		}
		if _, err := os.Stat(f.dir + ".old"); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the old one: %v", err)
		}
		f.shares()
	})
}

// TestHostFixAtOnce: of many fixes one makes the store, and all find it.
func TestHostFixAtOnce(t *testing.T) {
	private(t, func(t *testing.T) {
		f := newFixing(t)
		var all sync.WaitGroup
		reports := make([]Report, 4)
		for i := range reports {
			all.Go(func() { reports[i] = fix(t.Context(), f.host, f.options) })
		}
		all.Wait()
		made := 0
		for _, report := range reports {
			if len(report) != 1 || report[0].Severity != Warning {
				t.Errorf("%+v", report)
			}
			made += strings.Count(fmt.Sprint(report), "made and mounted")
		}
		if made != 1 || f.mounts() != 1 {
			t.Errorf("made %d times, mounted %d times", made, f.mounts())
		}
	})
}

// TestHostFixThatFails leaves nothing, and is not in the way of one that does not.
func TestHostFixThatFails(t *testing.T) {
	private(t, func(t *testing.T) {
		f := newFixing(t)
		run := f.run
		refusing := func(program string) func(context.Context, string, ...string) error {
			return func(ctx context.Context, name string, args ...string) error {
				if name == program {
					return errBroken
				}
				return run(ctx, name, args...)
			}
		}
		for _, row := range []struct {
			spoil func(*fixing)
			words string
		}{
			{func(f *fixing) { f.run = refusing("mkfs.xfs") }, "broken"},
			{func(f *fixing) { f.run = refusing("mount") }, "broken"},
			{func(f *fixing) { f.options.StoreMiB = minStoreMiB - 1 }, "320 at least"},
			{func(f *fixing) { f.options.StoreMiB = 1 << 20 }, "are free"},
			{func(f *fixing) { f.uid = 1000 }, "user 1000"},
			{func(f *fixing) { f.host.reflink = func(string) (bool, error) { return false, errBroken } }, "broken"},
			{func(f *fixing) { // what a fix has made is no store: nothing shares blocks
				f.host.reflink = func(string) (bool, error) { return false, nil }
			}, "can't share blocks"},
			{func(f *fixing) {
				f.run = func(ctx context.Context, name string, args ...string) error {
					if name == "mount" {
						if err := os.Mkdir(filepath.Join(f.dir, "machines"), 0o700); err != nil {
							return err
						}
					}
					return run(ctx, name, args...)
				}
			}, "somebody has put machines into"},
		} {
			spoilt := *f
			row.spoil(&spoilt)
			spoilt.fix(Error, row.words)
			f.untouched()
		}
		if err := os.Remove(filepath.Join(f.dir, "machines")); err != nil { // somebody's, and there again
			t.Error(err)
		}
		if err := os.WriteFile(f.image+".part", []byte("interrupted"), 0o600); err != nil {
			t.Fatal(err)
		}
		f.fix(Warning, "made and mounted")
		if _, err := os.Stat(f.image + ".part"); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the interrupted one: %v", err)
		}
		f.shares()
	})
}

// TestHostFixKeepsWhatIsNoStore: a file that has the store's name and is something else is left alone.
func TestHostFixKeepsWhatIsNoStore(t *testing.T) {
	private(t, func(t *testing.T) {
		f := newFixing(t)
		if err := errors.Join(os.MkdirAll(filepath.Dir(f.image), 0o700), os.WriteFile(f.image, []byte("mine"), 0o600)); err != nil {
			t.Fatal(err)
		}
		f.fix(Error, "mount")
		if text, err := os.ReadFile(f.image); err != nil || string(text) != "mine" || f.mounts() != 0 {
			t.Errorf("it is %q, %v", text, err)
		}
		if err := os.Remove(f.image); err != nil {
			t.Fatal(err)
		}
		f.fix(Warning, "made and mounted")
	})
}

// TestFixNeedsJailsBeside: jails elsewhere would be on another file system then.
func TestFixNeedsJailsBeside(t *testing.T) {
	f := newFake(t)
	f.JailDir = f.path("jails")
	if report := fix(t.Context(), f.host, Options{Driver: f.Options}); len(report) != 1 || report[0].Severity != Warning || !strings.Contains(report[0].Remedy, "MICROVM_JAILER_CHROOT_BASE") {
		t.Errorf("%+v", report)
	}
	f.JailDir = ""
	if report := fix(t.Context(), f.host, Options{Driver: f.Options}); len(report) != 1 || report[0].Severity != OK {
		t.Errorf("where files can share blocks: %+v", report)
	}
}

// TestHostProbeReflink tells the file systems apart, and leaves nothing.
func TestHostProbeReflink(t *testing.T) {
	private(t, func(t *testing.T) {
		for kind, want := range map[string]bool{loopfs.XFS: true, loopfs.PlainXFS: false, loopfs.Ext4: false} {
			dir := filepath.Join(loopfs.Mount(t, kind, 320), "dir")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			if can, err := unix.ProbeReflink(dir); err != nil || can != want {
				t.Errorf("%s: %v, %v, want %v", kind, can, err, want)
			}
			if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
				t.Errorf("%s: there is %v, %v", kind, entries, err)
			}
		}
	})
}
