//go:build linux

package kernel_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/tangle-network/microvm-runtime/internal/testing/fakekernel"
	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
	"github.com/tangle-network/microvm-runtime/kernel"
)

// busybox is a reader of archives that is not ours.
func busybox(t *testing.T, archive []byte, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("busybox", append([]string{"cpio"}, args...)...)
	cmd.Dir, cmd.Stdin = dir, bytes.NewReader(archive)
	cmd.Env = append(os.Environ(), "TZ=UTC", "LC_ALL=C")
	var failure strings.Builder
	cmd.Stderr = &failure
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("busybox cpio %q: %v: %s", args, err, failure.String())
	}
	return string(out)
}

// mixed is an archive of each kind, with names and contents of all lengths that alignment tells apart.
func mixed(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	c := kernel.NewCpio(&b)
	c.Dir("dev", 0o755)
	c.CharDevice("dev/console", 0o600, 5, 1)
	c.CharDevice("dev/large", 0o666, 4095, 1048575)
	c.Dir("private", 0o700)
	c.Dir("sticky", 0o1777)
	for length := range 6 {
		for content := range 6 {
			c.File(alignedName(length, content), 0o640, bytes.Repeat([]byte{'x'}, content))
		}
	}
	c.File("setuid", 0o4755, []byte("program"))
	c.File("empty", 0o000, nil)
	c.Link("link", "dev/console")
	c.Link("dangling", strings.Repeat("long/", 50)+"target")
	c.File(strings.Repeat("n", 255), 0o644, []byte("long name"))
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func alignedName(length, content int) string {
	return fmt.Sprintf("%s%d", strings.Repeat("a", length), content)
}

func TestCpioLists(t *testing.T) {
	list := busybox(t, mixed(t), "", "-tv")
	for _, want := range []string{
		"drwxr-xr-x 0/0         0 1970-01-01 00:00:00 dev\n",
		"crw------- 0/0         0 1970-01-01 00:00:00 dev/console\n",
		"drwxrwxrwt 0/0         0 1970-01-01 00:00:00 sticky\n",
		"-rw-r----- 0/0         5 1970-01-01 00:00:00 aaaaa5\n",
		"-rwsr-xr-x 0/0         7 1970-01-01 00:00:00 setuid\n",
		"---------- 0/0         0 1970-01-01 00:00:00 empty\n",
		"lrwxrwxrwx 0/0         0 1970-01-01 00:00:00 link -> dev/console\n",
		strings.Repeat("n", 255) + "\n",
	} {
		if !strings.Contains(list, want) {
			t.Errorf("the list lacks %q", want)
		}
	}
	if n := strings.Count(list, "\n"); n != 5+36+5 {
		t.Errorf("%d entries, want 46:\n%s", n, list)
	}
	if !bytes.Equal(mixed(t), mixed(t)) {
		t.Error("the same input gives other bytes")
	}
}

// TestHostCpioUnpacks what was put in, by another program, as root.
func TestHostCpioUnpacks(t *testing.T) {
	ring.Host(t)
	dir := t.TempDir()
	busybox(t, mixed(t), dir, "-id")
	for length := range 6 {
		for content := range 6 {
			text, err := os.ReadFile(filepath.Join(dir, alignedName(length, content)))
			if err != nil || string(text) != strings.Repeat("x", content) {
				t.Errorf("name of %d, content of %d: %q, %v", length+1, content, text, err)
			}
		}
	}
	for name, want := range map[string]fs.FileMode{
		"dev": fs.ModeDir | 0o755, "private": fs.ModeDir | 0o700, "sticky": fs.ModeDir | fs.ModeSticky | 0o777, "setuid": fs.ModeSetuid | 0o755, "empty": 0,
		"dev/console": fs.ModeDevice | fs.ModeCharDevice | 0o600, "dev/large": fs.ModeDevice | fs.ModeCharDevice | 0o666, "link": fs.ModeSymlink | 0o777,
	} {
		info, err := os.Lstat(filepath.Join(dir, name))
		if err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v; want %v", name, info.Mode(), err, want)
			continue
		}
		if stat := info.Sys().(*syscall.Stat_t); stat.Uid != 0 || stat.Gid != 0 {
			t.Errorf("%s belongs to %d:%d", name, stat.Uid, stat.Gid)
		}
	}
	for name, want := range map[string]uint64{"dev/console": 5<<8 | 1, "dev/large": 0xfff<<8 | 0xff | 0xfff00<<12} { // makedev(3)
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Sys().(*syscall.Stat_t).Rdev != want {
			t.Errorf("%s: %+v, %v; want device %#x", name, info, err, want)
		}
	}
	if target, err := os.Readlink(filepath.Join(dir, "dangling")); err != nil || target != strings.Repeat("long/", 50)+"target" {
		t.Errorf("dangling links to %q, %v", target, err)
	}
}

// TestCpioRefuses what Linux would leave out, or take for the archive's end.
func TestCpioRefuses(t *testing.T) {
	long := strings.Repeat("n", 4095)
	for name, c := range map[string]struct {
		add func(*kernel.Cpio)
		ok  bool
	}{
		"no name":       {func(c *kernel.Cpio) { c.File("", 0o644, nil) }, false},
		"an end":        {func(c *kernel.Cpio) { c.File("TRAILER!!!", 0o644, nil) }, false},
		"an end below":  {func(c *kernel.Cpio) { c.File("a/TRAILER!!!", 0o644, nil) }, true},
		"a slash first": {func(c *kernel.Cpio) { c.Dir("/dev", 0o755) }, false},
		"NUL":           {func(c *kernel.Cpio) { c.Dir("a\x00b", 0o755) }, false},
		"long":          {func(c *kernel.Cpio) { c.Dir(long, 0o755) }, true},
		"longer":        {func(c *kernel.Cpio) { c.Dir(long+"n", 0o755) }, false},
		"long link":     {func(c *kernel.Cpio) { c.Link("l", long) }, true},
		"longer link":   {func(c *kernel.Cpio) { c.Link("l", long+"n") }, false},
		"empty link":    {func(c *kernel.Cpio) { c.Link("l", "") }, false},
	} {
		var b bytes.Buffer
		cpio := kernel.NewCpio(&b)
		cpio.Dir("before", 0o755)
		c.add(cpio)
		cpio.Dir("after", 0o755)
		if err := cpio.Close(); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
		if whole := strings.Contains(b.String(), "TRAILER!!!\x00"); c.ok != (whole && strings.Contains(b.String(), "after")) {
			t.Errorf("%s: the archive goes on", name)
		}
	}
}

// full is a writer with so much room.
type full int

func (f *full) Write(p []byte) (int, error) {
	n := min(int(*f), len(p))
	if *f -= full(n); n < len(p) {
		return n, syscall.ENOSPC
	}
	return n, nil
}

func TestCpioTellsOfItsWriter(t *testing.T) {
	whole := len(mixed(t))
	for room := 0; room < whole; room += 111 {
		f := full(room)
		c := kernel.NewCpio(&f)
		for range whole / 100 {
			c.File("name", 0o644, []byte("content"))
		}
		if err := c.Close(); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("room for %d bytes: %v, want ENOSPC", room, err)
		}
	}
}

func TestWriteInitramfs(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "agent")
	if err := os.WriteFile(program, []byte("\x7fELF program"), 0o700); err != nil {
		t.Fatal(err)
	}
	content := fakekernel.Module{Release: "6.1"}.Content()
	var b bytes.Buffer
	if err := kernel.WriteInitramfs(&b, kernel.Initramfs{Init: program, Modules: []kernel.Module{{Name: "virtio_ring", Content: content}, {Name: "virtio", Content: content}}}); err != nil {
		t.Fatal(err)
	}
	list := busybox(t, b.Bytes(), "", "-tv")
	for _, want := range []string{
		"crw------- 0/0         0 1970-01-01 00:00:00 dev/console\n", "-rwxr-xr-x 0/0        12 1970-01-01 00:00:00 init\n",
		fmt.Sprintf("%9d 1970-01-01 00:00:00 lib/modules/virtio_ring.ko\n", len(content)), " proc\n", " sys\n", " run\n", " tmp\n",
	} {
		if !strings.Contains(list, want) {
			t.Errorf("the list lacks %q:\n%s", want, list)
		}
	}
	if order := "/lib/modules/virtio_ring.ko\n/lib/modules/virtio.ko\n"; !bytes.Contains(b.Bytes(), []byte(order)) {
		t.Errorf("the list of modules is not %q", order)
	}
	if err := kernel.WriteInitramfs(&b, kernel.Initramfs{Init: filepath.Join(dir, "none")}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no init: %v", err)
	}
	nowhere := full(1000)
	if err := kernel.WriteInitramfs(&nowhere, kernel.Initramfs{Init: program}); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("a full disk: %v, want ENOSPC", err)
	}
}
