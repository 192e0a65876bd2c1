//go:build linux

package agent

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Places in the initial RAM file system. ModulesFile lists modules, one path a line, dependencies first.
const (
	ModulesFile = "/etc/microvm/modules"
	baseDevice  = "/dev/vda"
	layerDevice = "/dev/vdb"
	newRoot     = "/new"
)

// Boot makes a running system: it loads the modules, puts the layer over the base, and makes that the root. The agent is the first process and has the initial RAM file
// system as its root when Boot is called.
func Boot() error {
	if err := early(); err != nil {
		return err
	}
	if err := loadModules(ModulesFile); err != nil {
		return err
	}
	if err := mountRoot(); err != nil {
		return err
	}
	if err := switchRoot(); err != nil {
		return err
	}
	return late()
}

// mounting is one mount(2).
type mounting struct {
	source, target, kind string
	flags                uintptr
	data                 string
}

func (m mounting) do() error {
	if err := os.MkdirAll(m.target, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(m.source, m.target, m.kind, m.flags, m.data); err != nil {
		return fmt.Errorf("mount %s on %s: %w", m.source, m.target, err)
	}
	return nil
}

const hidden = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

// early makes what loading modules and finding disks needs.
func early() error {
	for _, m := range []mounting{
		{"proc", "/proc", "proc", hidden, ""},
		{"sysfs", "/sys", "sysfs", hidden, ""},
		{"devtmpfs", "/dev", "devtmpfs", unix.MS_NOSUID, "mode=0755"},
	} {
		if err := m.do(); err != nil && !errors.Is(err, unix.EBUSY) { // the kernel may have mounted /dev itself
			return err
		}
	}
	return nil
}

// loadModules loads what the list names, in its order. One that is built in, or loaded, is no error.
func loadModules(list string) error {
	f, err := os.Open(list)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if err := loadModule(strings.TrimSpace(lines.Text())); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("%s: %w", list, err)
	}
	return nil
}

func loadModule(path string) error {
	if path == "" {
		return nil
	}
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("module: %w", err)
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("module %s: %w", path, err)
	}
	return nil
}

// mountRoot puts the layer over the base.
func mountRoot() error {
	cmdline, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return err
	}
	layer, err := layerOf(string(cmdline))
	if err != nil {
		return err
	}
	for _, m := range []mounting{{baseDevice, "/base", "ext4", unix.MS_RDONLY, "noload"}, layer} {
		if err := m.awaitDisk(diskPatience); err != nil {
			return err
		}
		if err := m.do(); err != nil {
			return err
		}
	}
	for _, dir := range []string{"/layer/upper", "/layer/work"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	return mounting{"overlay", newRoot, "overlay", 0, "lowerdir=/base,upperdir=/layer/upper,workdir=/layer/work"}.do()
}

// layerWord is the word of the kernel's command line that says what the layer is: "disk", as without it, or "tmpfs", which forgets all at the machine's end.
const layerWord = "microvm.layer="

// layerOf says what goes over the base. A disk that is late is waited for: what is written to memory in its place would be lost, and nobody would know.
func layerOf(cmdline string) (mounting, error) {
	layer := "disk"
	for word := range strings.FieldsSeq(cmdline) {
		if value, ok := strings.CutPrefix(word, layerWord); ok {
			layer = value
		}
	}
	switch layer {
	case "disk":
		return mounting{layerDevice, "/layer", "ext4", unix.MS_NOATIME, ""}, nil
	case "tmpfs":
		return mounting{"tmpfs", "/layer", "tmpfs", 0, "mode=0755"}, nil
	}
	return mounting{}, fmt.Errorf("the kernel's command line says %s%s (it must be disk or tmpfs)", layerWord, layer)
}

// diskPatience is how long a disk may take to come.
const diskPatience = 10 * time.Second

// awaitDisk waits for the disk of a mount that has one.
func (m mounting) awaitDisk(patience time.Duration) error {
	if !filepath.IsAbs(m.source) {
		return nil
	}
	return awaitDisk(m.source, patience)
}

// AwaitDisk waits until a disk is there: drivers probe while the first process runs.
func AwaitDisk(path string) error { return awaitDisk(path, diskPatience) }

func awaitDisk(path string, patience time.Duration) error {
	for begin := time.Now(); ; time.Sleep(time.Millisecond) {
		if _, err := os.Stat(path); err == nil {
			return nil
		}
		if time.Since(begin) > patience {
			return fmt.Errorf("disk %s is not there after %v", path, patience)
		}
	}
}

// switchRoot makes newRoot the root and gives the memory of the initial RAM file system back.
func switchRoot() error {
	for _, m := range []string{"/dev", "/proc", "/sys"} {
		target := filepath.Join(newRoot, m)
		if err := os.MkdirAll(target, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m, target, "", unix.MS_MOVE, ""); err != nil {
			return fmt.Errorf("move %s: %w", m, err)
		}
	}
	for _, path := range []string{"/lib", "/etc", "/init"} {
		os.RemoveAll(path)
	}
	if err := unix.Chdir(newRoot); err != nil {
		return err
	}
	if err := unix.Mount(newRoot, "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("chroot: %w", err)
	}
	return unix.Chdir("/")
}

// late makes what programs expect of a running system.
func late() error {
	for _, m := range []mounting{
		{"tmpfs", "/run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=0755"},
		{"devpts", "/dev/pts", "devpts", unix.MS_NOSUID | unix.MS_NOEXEC, "mode=0620,gid=5,ptmxmode=0666"},
		{"tmpfs", "/dev/shm", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777"},
		{"cgroup2", "/sys/fs/cgroup", "cgroup2", hidden, ""},
	} {
		if err := m.do(); err != nil {
			return err
		}
	}
	if err := os.MkdirAll("/tmp", 0o777); err != nil {
		return err
	}
	for _, link := range [][2]string{{"/proc/self/fd", "/dev/fd"}, {"fd/0", "/dev/stdin"}, {"fd/1", "/dev/stdout"}, {"fd/2", "/dev/stderr"}} {
		target := link[0]
		if !filepath.IsAbs(target) {
			target = "/proc/self/" + target
		}
		if err := os.Symlink(target, link[1]); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	return errors.Join(unix.Chmod("/tmp", 0o1777), loopbackUp(), setHostname(), networkUp("/"))
}

// setHostname takes the image's own name, else a constant one.
func setHostname() error {
	name, err := os.ReadFile("/etc/hostname")
	host := strings.TrimSpace(string(name))
	if err != nil || host == "" || len(host) > 64 {
		host = "microvm"
	}
	return unix.Sethostname([]byte(host))
}
