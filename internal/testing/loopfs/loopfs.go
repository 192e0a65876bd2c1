//go:build linux

// Package loopfs gives tests file systems of their own: in a file, mounted where no other process of the host sees it.
//
// There are only three functions: [Private] runs a test in a mount namespace of its own, [Mount] makes and mounts a file system there, and [Shared] says how much of a file shares its blocks with others.
//
// # Caveats
//
// A test that calls Private is executed twice: once in a process of its own, where it is the test, and once in the test's process, which waits for that and reports what came of it. A test
// that is killed leaves no mount: the namespace goes with its last process, and the loop device with its last mount.
package loopfs

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

// inside is the environment variable that names the test that a process is for.
const inside = "MICROVM_TEST_LOOPFS"

// patience is how long a test in a namespace of its own may take.
const patience = 3 * time.Minute

// Private says whether this process is the test's own, with a mount namespace that is. In the other it runs that one to its end, and returns false: there is nothing left to do. It is
// called first, by a test and by no subtest, after what says whether it can run at all.
func Private(t *testing.T) bool {
	t.Helper()
	if os.Getenv(inside) == t.Name() {
		return true
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, self, "-test.run", "^"+regexp.QuoteMeta(t.Name())+"$", "-test.v", "-test.timeout", patience.String())
	cmd.Env = append(os.Environ(), inside+"="+t.Name(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin") // administrators' programs are not on everybody's
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()+" ") {
		t.Fatalf("in a mount namespace of its own: %v\n%s", err, out)
	}
	return false
}

// The kinds of file systems.
const (
	XFS      = "xfs"   // Files can share blocks.
	PlainXFS = "plain" // xfs whose files can't.
	Ext4     = "ext4"  // They can't.
)

// makers are the commands that make a file system in a file, which is the last argument.
var makers = map[string][]string{
	XFS:      {"mkfs.xfs", "-q", "-m", "reflink=1"},
	PlainXFS: {"mkfs.xfs", "-q", "-m", "reflink=0"},
	Ext4:     {"mke2fs", "-q", "-F", "-t", "ext4"},
}

// Mount returns a directory where a new file system of a kind is mounted, until the test ends. It is sparse; xfs takes 300 MiB at least.
func Mount(t *testing.T, kind string, sizeMiB int) string {
	t.Helper()
	if os.Getenv(inside) == "" {
		t.Fatal("a file system is mounted in the host's own namespace: call Private first")
	}
	dir := t.TempDir()
	image, mount := filepath.Join(dir, kind), filepath.Join(dir, "mount")
	f, err := os.Create(image)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(int64(sizeMiB)<<20), f.Close(), os.Mkdir(mount, 0o755)); err != nil {
		t.Fatal(err)
	}
	run(t, append(makers[kind], image)...)
	run(t, "mount", "-o", "loop", image, mount)
	t.Cleanup(func() { run(t, "umount", mount) })
	return mount
}

// run executes a program. It is called when a test's context has ended, too.
func run(t *testing.T, command ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if out, err := exec.CommandContext(ctx, command[0], command[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", strings.Join(command, " "), err, out)
	}
}

// The kernel's linux/fiemap.h.
const (
	fiemapRequest = 0xc020660b // FS_IOC_FIEMAP
	fiemapSync    = 0x1
	fiemapLast    = 0x1
	fiemapShared  = 0x2000
	fiemapExtents = 512
)

type fiemap struct {
	start, length           uint64
	flags, mapped, count, _ uint32
	extents                 [fiemapExtents]struct {
		logical, physical, length uint64
		_                         [2]uint64
		flags                     uint32
		_                         [3]uint32
	}
}

// Shared returns how many bytes of a file are in blocks that other files have too.
func Shared(t *testing.T, path string) (shared int64) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for m := (fiemap{}); ; {
		m = fiemap{start: m.start, length: ^uint64(0) - m.start, flags: fiemapSync, count: fiemapExtents}
		if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), fiemapRequest, uintptr(unsafe.Pointer(&m))); errno != 0 {
			t.Fatalf("fiemap %s: %v", path, errno)
		}
		for _, extent := range m.extents[:m.mapped] {
			if extent.flags&fiemapShared != 0 {
				shared += int64(extent.length)
			}
			if extent.flags&fiemapLast != 0 {
				return shared
			}
			m.start = extent.logical + extent.length
		}
		if m.mapped == 0 {
			return shared
		}
	}
}
