//go:build linux

// Package leak fails a package's tests when they leave something behind on the host.
//
// There is only one function: [Main], which a TestMain calls.
package leak

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tangle-network/microvm-runtime/internal/cgroup"
	"github.com/tangle-network/microvm-runtime/internal/inventory"
)

// leakPatience is how long what tests began may take to end, and tests of other packages, which use the same host, to take their things away.
const leakPatience = 10 * time.Second

// Main runs a package's tests and returns what to exit with. It fails when they leave goroutines, descriptors, child processes, VMMs, mounts, network namespaces,
// links or cgroups behind.
func Main(m *testing.M) int {
	before, err := holdings()
	if err != nil {
		fmt.Fprintln(os.Stderr, "leaks can't be told:", err)
		return 1
	}
	code := m.Run()
	if code != 0 {
		return code
	}
	if err := leaks(before); err != nil {
		fmt.Fprintln(os.Stderr, "the tests left behind:", err)
		return 1
	}
	return 0
}

// leaks says what there is more than before, once that has had time to go.
func leaks(before inventory.Census) error {
	deadline := time.Now().Add(leakPatience)
	for pause := time.Millisecond; ; pause = min(2*pause, 200*time.Millisecond) {
		after, err := holdings()
		added := inventory.Diff(before, after).Added
		if len(added) > 0 {
			err = errors.Join(err, errors.New(strings.TrimSpace(inventory.Changes{Added: added}.String())))
		}
		if err == nil || time.Now().After(deadline) {
			return errors.Join(err, goleak.Find())
		}
		time.Sleep(pause)
	}
}

// holdings are what this process has, and what machines have on the host.
func holdings() (inventory.Census, error) {
	census, err := inventory.Take(inventory.Options{})
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

// cgroups are those that a test's slice or a default one would be.
func cgroups() ([]inventory.Item, error) {
	root, err := cgroup.Root()
	if errors.Is(err, cgroup.ErrUnsupported) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	dirs, err := filepath.Glob(filepath.Join(root, "microvm*"))
	var items []inventory.Item
	for _, dir := range dirs {
		items = append(items, inventory.Item{Kind: "cgroup", Name: dir})
	}
	return items, err
}
