//go:build linux

// Package inventory takes a census of what machines use on a host, so that what is left behind can be told.
//
// There are only three types: a [Census] is a set of [Item]s, and [Diff] tells two apart. [Options] say what belongs to it.
//
// # Caveats
//
// It is a look from outside: it reads /proc, /sys and directories, and knows nothing of records.
package inventory

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/tangle-network/microvm-runtime/internal/cgroup"
)

// Options say what a census looks at.
type Options struct {
	Programs []string // Names of executables whose processes count. Optional: firecracker and jailer.
	Slice    string   // cgroup v2 slice whose leaves count. Optional.
	Roots    []string // Directories whose files count. Optional.
	Under    string   // Only processes that work, are rooted or name something below this directory, and mounts below it. Optional: all.
}

// Item is one thing.
type Item struct {
	Kind   string // "process", "mount", "netns", "link", "cgroup", "loop", "socket", "fifo", "file", "dir" or "symlink"
	Name   string // What tells it from others of its kind.
	Detail string // For people.
}

// Census is what there is, sorted.
type Census []Item

// Take takes a census.
func Take(o Options) (Census, error) {
	if o.Programs == nil {
		o.Programs = []string{"firecracker", "jailer"}
	}
	var c Census
	errs := []error{c.processes(o.Programs, o.Under), c.mounts(o.Under), c.entries("netns", "/run/netns"), c.entries("link", "/sys/class/net"), c.loops(o.Under), c.leaves(o.Slice)}
	for _, root := range o.Roots {
		errs = append(errs, c.files(root))
	}
	slices.SortFunc(c, func(a, b Item) int { return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name)) })
	return c, errors.Join(errs...)
}

func (c *Census) add(kind, name, detail string) { *c = append(*c, Item{kind, name, detail}) }

func (c *Census) processes(programs []string, under string) error {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if _, err := strconv.Atoi(entry.Name()); err != nil {
			continue
		}
		exe, err := os.Readlink(filepath.Join("/proc", entry.Name(), "exe"))
		if err != nil { // gone, a zombie, or a kernel thread
			continue
		}
		program := strings.TrimSuffix(filepath.Base(exe), " (deleted)")
		if slices.Contains(programs, program) {
			args, _ := os.ReadFile(filepath.Join("/proc", entry.Name(), "cmdline"))
			if under == "" || isUnder(entry.Name(), string(args), under) {
				c.add("process", entry.Name()+" "+program, strings.TrimSpace(strings.ReplaceAll(string(args), "\x00", " ")))
			}
		}
	}
	return nil
}

func isUnder(pid, args, dir string) bool {
	for _, link := range []string{"cwd", "root"} {
		if path, err := os.Readlink(filepath.Join("/proc", pid, link)); err == nil && (path == dir || strings.HasPrefix(path, dir+"/")) {
			return true
		}
	}
	return strings.Contains(args, dir+"/")
}

func (c *Census) mounts(under string) error {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) > 4 && (under == "" || fields[4] == under || strings.HasPrefix(fields[4], under+"/")) {
			c.add("mount", fields[4], fields[3])
		}
	}
	return nil
}

func (c *Census) entries(kind, dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, entry := range entries {
		c.add(kind, entry.Name(), "")
	}
	return nil
}

// loops finds loop devices of files below a directory, all when it is empty.
func (c *Census) loops(under string) error {
	backed, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return err
	}
	for _, path := range backed {
		text, err := os.ReadFile(path)
		file := strings.TrimSpace(string(text))
		if err == nil && (under == "" || strings.HasPrefix(file, under+"/")) {
			c.add("loop", filepath.Base(filepath.Dir(filepath.Dir(path))), file)
		}
	}
	return nil
}

func (c *Census) leaves(slice string) error {
	root, err := cgroup.Root()
	if slice == "" || errors.Is(err, cgroup.ErrUnsupported) {
		return nil
	}
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(filepath.Join(root, slice))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if entry.IsDir() {
			c.add("cgroup", filepath.Join(slice, entry.Name()), "")
		}
	}
	return nil
}

func (c *Census) files(root string) error {
	return filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		kind := map[fs.FileMode]string{0: "file", fs.ModeDir: "dir", fs.ModeSymlink: "symlink", fs.ModeSocket: "socket", fs.ModeNamedPipe: "fifo"}[entry.Type()]
		if kind == "" {
			kind = "device"
		}
		c.add(kind, path, "")
		return nil
	})
}

// Changes are what differs between two censuses.
type Changes struct {
	Added, Removed []Item
}

// Diff returns what came and what went.
func Diff(before, after Census) Changes {
	key := func(i Item) string { return i.Kind + "\x00" + i.Name }
	index := func(c Census) map[string]bool {
		m := make(map[string]bool, len(c))
		for _, item := range c {
			m[key(item)] = true
		}
		return m
	}
	had, has := index(before), index(after)
	var changes Changes
	for _, item := range after {
		if !had[key(item)] {
			changes.Added = append(changes.Added, item)
		}
	}
	for _, item := range before {
		if !has[key(item)] {
			changes.Removed = append(changes.Removed, item)
		}
	}
	return changes
}

// Empty says that nothing differs.
func (c Changes) Empty() bool { return len(c.Added)+len(c.Removed) == 0 }

// String returns one line an item: "+ kind name detail" or "- kind name detail".
func (c Changes) String() string {
	var b strings.Builder
	for _, side := range []struct {
		sign  string
		items []Item
	}{{"+", c.Added}, {"-", c.Removed}} {
		for _, item := range side.items {
			fmt.Fprintln(&b, strings.TrimSpace(side.sign+" "+item.Kind+" "+item.Name+" "+item.Detail))
		}
	}
	return b.String()
}
