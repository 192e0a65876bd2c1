//go:build linux

package inventory_test

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/tangle-network/microvm-runtime/internal/cgroup"
	"github.com/tangle-network/microvm-runtime/internal/inventory"
	"github.com/tangle-network/microvm-runtime/internal/testing/leak"
	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
)

func TestDiff(t *testing.T) {
	file := inventory.Item{Kind: "file", Name: "/a"}
	dir := inventory.Item{Kind: "dir", Name: "/a"}
	process := inventory.Item{Kind: "process", Name: "7 firecracker", Detail: "firecracker --no-api"}
	renamed := inventory.Item{Kind: "process", Name: "7 firecracker", Detail: "another line"}
	for name, c := range map[string]struct {
		before, after inventory.Census
		want          inventory.Changes
		text          string
	}{
		"nothing":               {nil, nil, inventory.Changes{}, ""},
		"the same":              {inventory.Census{file, process}, inventory.Census{file, process}, inventory.Changes{}, ""},
		"in another order":      {inventory.Census{file, process}, inventory.Census{process, file}, inventory.Changes{}, ""},
		"another detail":        {inventory.Census{process}, inventory.Census{renamed}, inventory.Changes{}, ""},
		"added":                 {inventory.Census{file}, inventory.Census{file, process}, inventory.Changes{Added: []inventory.Item{process}}, "+ process 7 firecracker firecracker --no-api\n"},
		"removed":               {inventory.Census{file, process}, inventory.Census{process}, inventory.Changes{Removed: []inventory.Item{file}}, "- file /a\n"},
		"a kind for another":    {inventory.Census{file}, inventory.Census{dir}, inventory.Changes{Added: []inventory.Item{dir}, Removed: []inventory.Item{file}}, "+ dir /a\n- file /a\n"},
		"all of several, added": {nil, inventory.Census{dir, file}, inventory.Changes{Added: []inventory.Item{dir, file}}, "+ dir /a\n+ file /a\n"},
	} {
		got := inventory.Diff(c.before, c.after)
		if !reflect.DeepEqual(got, c.want) || got.String() != c.text || got.Empty() != (c.text == "") {
			t.Errorf("%s: %+v %q, empty: %v; want %q", name, got, got, got.Empty(), c.text)
		}
	}
}

// take returns a census of what is below a directory.
func take(t *testing.T, o inventory.Options) inventory.Census {
	t.Helper()
	census, err := inventory.Take(o)
	if err != nil {
		t.Fatal(err)
	}
	return census
}

func kindsOf(census inventory.Census, kinds ...string) []inventory.Item {
	items := []inventory.Item{}
	for _, item := range census {
		if slices.Contains(kinds, item.Kind) {
			items = append(items, item)
		}
	}
	return items
}

func TestTakeFiles(t *testing.T) {
	dir := t.TempDir()
	listener, err := net.Listen("unix", filepath.Join(dir, "socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	err = errors.Join(os.WriteFile(filepath.Join(dir, "file"), nil, 0o600), os.Mkdir(filepath.Join(dir, "dir"), 0o700), os.WriteFile(filepath.Join(dir, "dir", "below"), nil, 0o600),
		os.Symlink("nowhere", filepath.Join(dir, "link")), syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	got := kindsOf(take(t, inventory.Options{Roots: []string{dir, filepath.Join(dir, "none")}, Under: dir}), "file", "dir", "symlink", "fifo", "socket", "device")
	want := []inventory.Item{
		{Kind: "dir", Name: dir}, {Kind: "dir", Name: dir + "/dir"}, {Kind: "fifo", Name: dir + "/fifo"}, {Kind: "file", Name: dir + "/dir/below"}, {Kind: "file", Name: dir + "/file"},
		{Kind: "socket", Name: dir + "/socket"}, {Kind: "symlink", Name: dir + "/link"},
	}
	if !slices.Equal(got, want) {
		t.Errorf("%v\nwant %v", got, want)
	}
}

// TestTakeProcesses counts those of a program that have to do with a directory, also when their file has gone.
func TestTakeProcesses(t *testing.T) {
	base := t.TempDir()
	dir, other := filepath.Join(base, "state"), filepath.Join(base, "state-of-another")
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(sleep)
	if err := errors.Join(err, os.Mkdir(dir, 0o700), os.Mkdir(other, 0o700), os.WriteFile(filepath.Join(dir, "firecracker"), text, 0o700)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(dir, "firecracker"), "1000")
	cmd.Args[0] = "firecracker" // does not name the directory
	cmd.Dir = dir
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	name := strconv.Itoa(cmd.Process.Pid) + " firecracker"
	counts := func(o inventory.Options) bool {
		return slices.ContainsFunc(take(t, o), func(i inventory.Item) bool {
			return i.Kind == "process" && i.Name == name && strings.HasSuffix(i.Detail, "1000")
		})
	}
	for what, c := range map[string]struct {
		o    inventory.Options
		want bool
	}{
		"all":                        {inventory.Options{}, true},
		"under the directory":        {inventory.Options{Under: dir}, true},
		"under its parent":           {inventory.Options{Under: base}, true},
		"under another":              {inventory.Options{Under: other}, false},
		"under a part of its name":   {inventory.Options{Under: dir[:len(dir)-1]}, false},
		"of another program":         {inventory.Options{Programs: []string{"jailer"}}, false},
		"of this among the programs": {inventory.Options{Programs: []string{"jailer", "firecracker"}}, true},
	} {
		if got := counts(c.o); got != c.want {
			t.Errorf("%s: counted %v, want %v", what, got, c.want)
		}
	}
	if err := os.Remove(filepath.Join(dir, "firecracker")); err != nil {
		t.Fatal(err)
	}
	if !counts(inventory.Options{Under: dir}) {
		t.Error("it is not counted once its file has gone")
	}
}

func TestHostTakeMounts(t *testing.T) {
	ring.Host(t)
	base := t.TempDir()
	dir, other := filepath.Join(base, "state"), filepath.Join(base, "state-of-another")
	if err := errors.Join(os.Mkdir(dir, 0o700), os.Mkdir(other, 0o700), syscall.Mount("none", other, "tmpfs", 0, "")); err != nil {
		t.Fatal(err)
	}
	defer syscall.Unmount(other, syscall.MNT_DETACH)
	before := take(t, inventory.Options{Under: dir})
	if err := syscall.Mount("none", dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer syscall.Unmount(dir, syscall.MNT_DETACH)
	added := inventory.Diff(before, take(t, inventory.Options{Under: dir})).Added
	if mounts := kindsOf(added, "mount"); len(mounts) != 1 || mounts[0].Name != dir {
		t.Errorf("%v, want the mount of %s", mounts, dir)
	}
	if mounts := kindsOf(before, "mount"); len(mounts) != 0 {
		t.Errorf("%v is not under %s", mounts, dir)
	}
}

func TestHostTakeLeaves(t *testing.T) {
	ring.Host(t)
	path := leak.Slice("inventory")
	slice, err := cgroup.Open(path)
	if errors.Is(err, cgroup.ErrUnsupported) {
		if items := take(t, inventory.Options{Slice: path}); len(kindsOf(items, "cgroup")) != 0 {
			t.Errorf("%v without cgroups", items)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer slice.Remove()
	leaf, err := slice.NewLeaf("leaf")
	if err != nil {
		t.Fatal(err)
	}
	if got := kindsOf(take(t, inventory.Options{Slice: path}), "cgroup"); len(got) != 1 || got[0].Name != path+"/leaf" {
		t.Errorf("%v, want the leaf", got)
	}
	if err := leaf.Remove(); err != nil {
		t.Fatal(err)
	}
	if got := kindsOf(take(t, inventory.Options{Slice: path}), "cgroup"); len(got) != 0 {
		t.Errorf("%v, want none", got)
	}
}
