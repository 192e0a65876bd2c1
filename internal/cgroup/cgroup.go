//go:build linux

// Package cgroup makes the cgroup v2 leaf that each VMM lives in.
//
// There are only two types: a [Slice], under which all leaves of an installation are, and a [Leaf] of it, for one run of one machine. A process
// is born in its leaf (clone3(2) with CLONE_INTO_CGROUP): no instruction of it runs anywhere else.
//
// # Caveats
//
// A leaf is made afresh for every run: on some kernels nothing can be born in one that cgroup.kill was ever written to.
//
// Where the hierarchy has no controllers, as on a host whose controllers are in v1 hierarchies, a leaf still groups and kills.
package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/unix"
)

// ErrUnsupported is returned on a host without a cgroup v2 hierarchy.
var ErrUnsupported = errors.New("no cgroup v2 hierarchy is mounted (mount -t cgroup2 none /sys/fs/cgroup/unified)")

// Slice is the parent of an installation's leaves.
type Slice struct {
	path string // below the mount
	root string // of the hierarchy
}

// Leaf is the cgroup of one run of one machine.
type Leaf struct {
	slice *Slice
	name  string
	dir   *os.File
}

// Root returns where the cgroup v2 hierarchy is mounted, from /proc/self/mountinfo, or ErrUnsupported.
func Root() (string, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		mount, source, ok := strings.Cut(line, " - ")
		fields := strings.Fields(mount)
		if ok && len(fields) > 4 && strings.HasPrefix(source, "cgroup2 ") {
			return fields[4], nil
		}
	}
	return "", ErrUnsupported
}

// Holds says whether a process is in the cgroup of a path that begins with a slash, at the hierarchy's root.
func Holds(path string, pid int) (bool, error) {
	root, err := Root()
	if err != nil {
		return false, err
	}
	text, err := os.ReadFile(filepath.Join(root, path, "cgroup.procs"))
	return contains(text, strconv.Itoa(pid)), err
}

// Open makes the slice where it is missing, and lets its leaves have the controllers that there are. Path begins with a slash, at the
// hierarchy's root.
func Open(path string) (*Slice, error) {
	root, err := Root()
	if err != nil {
		return nil, err
	}
	s := &Slice{path: filepath.Join(root, path), root: root}
	if err := os.MkdirAll(s.path, 0o755); err != nil {
		return nil, fmt.Errorf("make slice: %w", err)
	}
	for dir := root; ; {
		if err := enable(dir); err != nil {
			return nil, err
		}
		if dir == s.path {
			return s, nil
		}
		rest, _ := strings.CutPrefix(s.path, dir)
		next, _, _ := strings.Cut(strings.TrimPrefix(rest, "/"), "/")
		dir = filepath.Join(dir, next)
	}
}

// wanted are the controllers that leaves use, where they are there.
var wanted = []string{"cpu", "io", "memory", "pids"}

// enable lets the children of dir have the wanted controllers, as far as dir has them. A cgroup with processes of its own can't; that is found
// when a limit is set.
func enable(dir string) error {
	has, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return err
	}
	on, err := os.ReadFile(filepath.Join(dir, "cgroup.subtree_control"))
	if err != nil {
		return err
	}
	for _, controller := range wanted {
		if !contains(has, controller) || contains(on, controller) {
			continue
		}
		err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+controller), 0)
		if err != nil && !errors.Is(err, syscall.EBUSY) && !errors.Is(err, syscall.ENOENT) && !errors.Is(err, syscall.EOPNOTSUPP) {
			return fmt.Errorf("enable controller %s in %s: %w", controller, dir, err)
		}
	}
	return nil
}

func contains(list []byte, word string) bool {
	return slices.Contains(strings.Fields(string(list)), word)
}

// NewLeaf makes a fresh leaf. One of that name that is still there and empty is removed first; one with processes is syscall.EBUSY.
func (s *Slice) NewLeaf(name string) (*Leaf, error) {
	path := filepath.Join(s.path, name)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove stale leaf: %w", err)
	}
	if err := os.Mkdir(path, 0o755); err != nil {
		return nil, fmt.Errorf("make leaf: %w", err)
	}
	leaf, err := s.Leaf(name)
	if err == nil && leaf == nil {
		err = os.ErrNotExist
	}
	if err != nil {
		return nil, errors.Join(err, os.Remove(path))
	}
	return leaf, nil
}

// Leaf returns the leaf of that name, nil when there is none.
func (s *Slice) Leaf(name string) (*Leaf, error) {
	dir, err := os.Open(filepath.Join(s.path, name))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &Leaf{slice: s, name: name, dir: dir}, nil
}

// Leaves returns the names of all leaves.
func (s *Slice) Leaves() ([]string, error) {
	entries, err := os.ReadDir(s.path)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, entry := range entries {
		if entry.IsDir() {
			names = append(names, entry.Name())
		}
	}
	return names, nil
}

// Remove removes the slice, which must have no leaves.
func (s *Slice) Remove() error { return os.Remove(s.path) }

// FD returns the leaf's descriptor, for clone3(2).
func (l *Leaf) FD() int { return int(l.dir.Fd()) }

// Path returns the leaf's path from the hierarchy's root, as it stands in /proc/PID/cgroup.
func (l *Leaf) Path() string {
	return "/" + strings.TrimPrefix(strings.TrimPrefix(l.dir.Name(), l.slice.root), "/")
}

// Procs returns the pids of the processes in the leaf.
func (l *Leaf) Procs() ([]int, error) {
	text, err := l.read("cgroup.procs")
	if err != nil {
		return nil, err
	}
	var pids []int
	for field := range strings.FieldsSeq(text) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			return nil, fmt.Errorf("cgroup.procs: %w", err)
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

// Add moves a process into the leaf.
func (l *Leaf) Add(pid int) error {
	return os.WriteFile(filepath.Join(l.dir.Name(), "cgroup.procs"), []byte(strconv.Itoa(pid)), 0)
}

// Kill ends all processes in the leaf at once (cgroup.kill), before Linux 5.14 one after the other. It does not wait for their end.
func (l *Leaf) Kill() error {
	err := os.WriteFile(filepath.Join(l.dir.Name(), "cgroup.kill"), []byte("1"), 0)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ENODEV) {
		return l.killEach() // the leaf is gone, or the kernel has no such file
	}
	return err
}

// killEach ends the processes that are in the leaf now, by pidfd, so that no other process that gets the number is hit.
func (l *Leaf) killEach() error {
	pids, err := l.Procs()
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ENODEV) {
		return nil
	}
	for _, pid := range pids {
		err = errors.Join(err, l.killOne(pid))
	}
	return err
}

func (l *Leaf) killOne(pid int) error {
	fd, err := unix.PidfdOpen(pid)
	if errors.Is(err, syscall.ESRCH) || errors.Is(err, syscall.EINVAL) {
		return nil
	}
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	if path, err := unix.CgroupV2(pid); err != nil || path != l.Path() {
		return nil // it has left or ended
	}
	if err := unix.PidfdSendSignal(fd, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	return nil
}

// End ends all processes in the leaf, waits for their end, and removes the leaf. Those that are children of this program are reaped: whoever started them has
// forgotten them.
func (l *Leaf) End() error {
	pids, err := l.Procs()
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ENODEV) {
		err = nil
	}
	var pidfds []int
	for _, pid := range pids {
		if fd, err := unix.PidfdOpen(pid); err == nil {
			pidfds = append(pidfds, fd)
		}
	}
	err = errors.Join(err, l.Kill(), l.Remove())
	for _, fd := range pidfds {
		if err == nil { // they are ending at least
			unix.PidfdPoll(fd, -1)
			unix.PidfdWait(fd)
		}
		syscall.Close(fd)
	}
	return err
}

// OOMKills returns how many processes of the leaf the kernel killed for memory; 0 without the memory controller.
func (l *Leaf) OOMKills() int {
	text, err := l.read("memory.events")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(text) {
		if count, ok := strings.CutPrefix(strings.TrimSpace(line), "oom_kill "); ok {
			n, _ := strconv.Atoi(count)
			return n
		}
	}
	return 0
}

func (l *Leaf) read(file string) (string, error) {
	text, err := os.ReadFile(filepath.Join(l.dir.Name(), file))
	return string(text), err
}

// removePatience is how long killed processes may take to leave the leaf.
const removePatience = 5 * time.Second

// Remove removes the leaf and releases its descriptor, waiting for processes that were killed. One that lives is syscall.EBUSY.
func (l *Leaf) Remove() error {
	defer l.Close()
	deadline := time.Now().Add(removePatience)
	for pause := 100 * time.Microsecond; ; pause = min(2*pause, 10*time.Millisecond) {
		err := os.Remove(l.dir.Name())
		if err == nil || errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if !errors.Is(err, syscall.EBUSY) || time.Now().After(deadline) {
			return fmt.Errorf("remove leaf: %w", err)
		}
		time.Sleep(pause)
	}
}

// Close releases the leaf's descriptor and leaves the leaf.
func (l *Leaf) Close() error {
	err := l.dir.Close()
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}
