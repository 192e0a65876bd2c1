//go:build linux

package firecracker

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/inventory"
	"github.com/tangle-network/microvm-runtime/internal/netns"
	"github.com/tangle-network/microvm-runtime/internal/setup"
	"github.com/tangle-network/microvm-runtime/internal/testing/leak"
	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
	"github.com/tangle-network/microvm-runtime/internal/testing/tinyguest"
	"github.com/tangle-network/microvm-runtime/runtimetest"
)

const marker = "tiny guest runs"

// raiseLoopback gives a namespace the addresses 127.0.0.0/8, as each host has them.
func raiseLoopback(t *testing.T, ns *netns.Namespace) {
	t.Helper()
	err := ns.Do(func() error {
		h, err := netlink.NewHandle(syscall.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer h.Close()
		lo, err := h.LinkByName("lo")
		if err != nil {
			return err
		}
		return h.LinkSetUp(lo)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// realHarness is the contract on the real Firecracker with few-instruction guests.
func realHarness(t *testing.T, p setup.Parts, bare bool) runtimetest.Harness {
	dir := t.TempDir()
	runs, ends := filepath.Join(dir, "runs"), filepath.Join(dir, "ends")
	for path, program := range map[string]tinyguest.Program{runs: {Text: marker + "\n"}, ends: {Text: marker + "\n", After: tinyguest.Reset}} {
		if err := tinyguest.Write(path, program); err != nil {
			t.Fatal(err)
		}
	}
	var options sync.Map // Options, by *microvm.Runtime.
	of := func(rt *microvm.Runtime) Options {
		o, _ := options.Load(rt)
		return o.(Options)
	}
	newRuntime := func(t *testing.T, o Options) *microvm.Runtime {
		rt, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		options.Store(rt, o)
		t.Cleanup(func() { rt.Close() })
		return rt
	}
	return runtimetest.Harness{
		New: func(t *testing.T) *microvm.Runtime {
			o := testOptions(t, p, bare)
			o.Kernel = runs
			return newRuntime(t, o)
		},
		Reopen: func(t *testing.T, rt *microvm.Runtime) *microvm.Runtime { return newRuntime(t, of(rt)) },
		Census: func(t *testing.T, rt *microvm.Runtime) string { return holdings(t, of(rt)) },
		Spec:   microvm.Spec{Diskless: true, MemoryMiB: 32},
		Ends:   &microvm.Spec{Diskless: true, MemoryMiB: 32, Kernel: ends},
		Marker: marker,

		Parallel: true, // they wait for the kernel more than they compute
	}
}

// holdings is all that a runtime has on the host, with what is in its files.
func holdings(t *testing.T, o Options) string {
	t.Helper()
	census, err := inventory.Take(inventory.Options{Slice: o.Slice, Under: filepath.Dir(o.StateDir), Roots: []string{o.StateDir, o.SocketDir}})
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, item := range census {
		if strings.HasPrefix(item.Name, filepath.Join(o.SocketDir, networkDir)) || item.Name == filepath.Join(o.StateDir, "subnet.json") { // slots stay made, for the next
			continue
		}
		fmt.Fprintln(&b, item.Kind, item.Name, treeOf(t, item))
	}
	return b.String()
}

// contents tells what is in a file from what was. A slot that was leased and given back comes last in the queue of those that are free.
func treeOf(t *testing.T, item inventory.Item) string {
	t.Helper()
	if item.Kind != "file" || strings.HasSuffix(item.Name, "/slots/free") {
		return ""
	}
	text, err := os.ReadFile(item.Name)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", sha256.Sum256(text))
}

// testOptions returns options whose state is the test's own, and checks when it ends that nothing of it is left on the host.
func testOptions(t *testing.T, p setup.Parts, bare bool) Options {
	t.Helper()
	return testOptionsOn(t, p, bare, nil)
}

// testOptionsOn is testOptions with a network namespace that stands for the host's; nil: an empty one.
func testOptionsOn(t *testing.T, p setup.Parts, bare bool, host *netns.Namespace) Options {
	t.Helper()
	dir, err := os.MkdirTemp("", "microvm-")
	if err != nil {
		t.Fatal(err)
	}
	slice := leak.Slice(filepath.Base(dir))
	o := Options{
		Firecracker: p.Firecracker, Jailer: p.Jailer, StateDir: filepath.Join(dir, "state"), SocketDir: filepath.Join(dir, "run"),
		Bare: bare, Slice: slice, MemoryMiB: 128,
	}
	census := inventory.Options{Slice: slice, Under: dir}
	before, err := inventory.Take(census)
	if err != nil {
		t.Fatal(err)
	}
	closeHost := func() error { return nil }
	if o.hostNet = host; host == nil {
		if o.hostNet, err = netns.Make(filepath.Join(dir, "host.net")); err != nil { // what machines' networks do to a host, they do to this one
			t.Fatal(err)
		}
		raiseLoopback(t, o.hostNet)
		closeHost = func() error { return errors.Join(o.hostNet.Close(), netns.Remove(o.hostNet.Path())) }
	}
	t.Cleanup(func() {
		if purged, err := Purge(context.Background(), o); err != nil || len(purged.Stays) > 0 { // t.Context has ended
			t.Errorf("purge: %v, and %q stays", err, purged.Stays)
		}
		if err := closeHost(); err != nil {
			t.Error(err)
		}
		after, err := inventory.Take(census)
		if err != nil {
			t.Error(err)
		}
		if changes := inventory.Diff(before, after); !changes.Empty() {
			t.Errorf("the host has changed:\n%s", changes)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return o
}

func TestRealContractBare(t *testing.T) {
	runtimetest.Run(t, realHarness(t, ring.Real(t), true))
}

func TestRealContractJailed(t *testing.T) {
	runtimetest.Run(t, realHarness(t, ring.Real(t), false))
}
