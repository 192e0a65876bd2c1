//go:build linux

// Package leak fails a package's tests when they leave something behind on the host.
//
// There are only two functions: [Main], which a TestMain calls, and [Slice], which names cgroups that it looks at.
package leak

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tangle-network/microvm-runtime/internal/cgroup"
	"github.com/tangle-network/microvm-runtime/internal/inventory"
)

// patience is how long what tests began may take to end.
const patience = 10 * time.Second

// mostMemory is where the garbage collector is let in: far above what most packages' tests allocate.
const mostMemory = 2 << 30

// Main runs a package's tests and returns what to exit with. It fails when they leave goroutines, descriptors, child processes, VMMs, mounts, network namespaces,
// links, cgroups or temporary files behind. Other packages' tests may run at the same time: what is looked at is below a temporary directory of this package's own, and
// in the cgroups that [Slice] names.
//
// The tests run without garbage collection: it would close the descriptors that nobody closes.
func Main(m *testing.M) int { return run(m, patience) }

func run(m *testing.M, patience time.Duration) int {
	dir, err := os.MkdirTemp("", "leak-")
	if err == nil {
		err = errors.Join(os.Chmod(dir, 0o755), os.Setenv("TMPDIR", dir)) // other users walk through it
	}
	before, err2 := holdings(dir)
	if err := errors.Join(err, err2); err != nil {
		fmt.Fprintln(os.Stderr, "leaks can't be told:", err)
		return 1
	}
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(min(mostMemory, debug.SetMemoryLimit(-1))) // GOMEMLIMIT, where it is set and less
	code := m.Run()
	if code != 0 {
		os.RemoveAll(dir)
		return code
	}
	if err := leaks(dir, before, patience); err != nil {
		fmt.Fprintln(os.Stderr, "the tests left behind:", err)
		return 1
	}
	return 0
}

// Slice returns the path of a cgroup slice for a test of this process.
func Slice(name string) string { return slicePrefix() + name + ".slice" }

func slicePrefix() string { return fmt.Sprintf("/microvm-test-%d-", os.Getpid()) }

// leaks says what there is more than before, once that has had time to go.
func leaks(dir string, before inventory.Census, patience time.Duration) error {
	var memory runtime.MemStats
	if runtime.ReadMemStats(&memory); memory.NumGC > 0 {
		fmt.Fprintf(os.Stderr, "the tests took %d MiB of memory: descriptors that garbage collection closed are not seen\n", memory.TotalAlloc>>20)
	}
	deadline := time.Now().Add(patience)
	for pause := time.Millisecond; ; pause = min(2*pause, 200*time.Millisecond) {
		after, err := holdings(dir)
		added := inventory.Diff(before, after).Added
		if len(added) > 0 {
			err = errors.Join(err, errors.New(strings.TrimSpace(inventory.Changes{Added: added}.String())))
		}
		if err == nil || time.Now().After(deadline) {
			err = errors.Join(err, goleak.Find())
		}
		if err == nil || time.Now().After(deadline) {
			return errors.Join(err, os.RemoveAll(dir))
		}
		time.Sleep(pause)
	}
}

// holdings are what this process has, and what its machines have on the host.
func holdings(dir string) (inventory.Census, error) {
	census, err := inventory.Take(inventory.Options{Under: dir, Roots: []string{dir}})
	if err != nil {
		return nil, err
	}
	for _, add := range []func() ([]inventory.Item, error){descriptors, children, cgroups} {
		items, err := add()
		if err != nil {
			return nil, err
		}
		census = append(census, items...)
	}
	return census, nil
}

func descriptors() ([]inventory.Item, error) {
	entries, err := os.ReadDir("/proc/self/fd")
	var items []inventory.Item
	for _, entry := range entries {
		// The runtime's own poller is opened late, once; the descriptor of this very directory has gone.
		to, err := os.Readlink(filepath.Join("/proc/self/fd", entry.Name()))
		if err == nil && !strings.HasPrefix(to, "anon_inode:[event") && !strings.HasSuffix(to, "/fd") {
			items = append(items, inventory.Item{Kind: "descriptor", Name: entry.Name() + " " + to})
		}
	}
	return items, err
}

func children() ([]inventory.Item, error) {
	threads, err := filepath.Glob("/proc/self/task/*/children")
	var items []inventory.Item
	for _, path := range threads {
		text, _ := os.ReadFile(path) // a thread may have ended
		for pid := range strings.FieldsSeq(string(text)) {
			args, _ := os.ReadFile(filepath.Join("/proc", pid, "cmdline"))
			items = append(items, inventory.Item{Kind: "child", Name: pid, Detail: strings.ReplaceAll(string(args), "\x00", " ")})
		}
	}
	return items, err
}

// cgroups are those of this process's tests.
func cgroups() ([]inventory.Item, error) {
	root, err := cgroup.Root()
	if errors.Is(err, cgroup.ErrUnsupported) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	dirs, err := filepath.Glob(filepath.Join(root, slicePrefix()+"*"))
	var items []inventory.Item
	for _, dir := range dirs {
		items = append(items, inventory.Item{Kind: "cgroup", Name: dir})
	}
	return items, err
}
