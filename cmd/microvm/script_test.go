//go:build linux

package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/vishvananda/netlink"

	"github.com/tangle-network/microvm-runtime/firecracker"
	"github.com/tangle-network/microvm-runtime/internal/inventory"
	"github.com/tangle-network/microvm-runtime/internal/netns"
	"github.com/tangle-network/microvm-runtime/internal/testing/leak"
	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
	"github.com/tangle-network/microvm-runtime/internal/testing/tinyguest"
)

// guarded are the package's tests, which may leave nothing behind.
type guarded struct{ *testing.M }

func (g guarded) Run() int { return leak.Main(g.M) }

func TestMain(m *testing.M) {
	firecracker.Helper() // of the microvm that this program is, too
	testscript.Main(guarded{m}, map[string]func(){"microvm": func() {
		enterHost()
		main()
	}})
}

// hostEnv is the path of the network namespace that stands for the host's.
const hostEnv = "MICROVM_TEST_HOST"

// enterHost executes this process anew in that namespace, where there is one: what machines' networks do to a host, they do to that one.
func enterHost() {
	path := os.Getenv(hostEnv)
	if path == "" {
		return
	}
	ns, err := netns.Open(path)
	if err == nil {
		err = os.Unsetenv(hostEnv)
	}
	if err == nil {
		err = ns.Do(func() error { return syscall.Exec("/proc/self/exe", os.Args, os.Environ()) })
	}
	panic(err)
}

// makeHost makes such a namespace, with nothing in it but its own loopback.
func makeHost(path string) error {
	ns, err := netns.Make(path)
	if err != nil {
		return err
	}
	err = ns.Do(func() error {
		loopback, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(loopback)
	})
	return errors.Join(err, ns.Close())
}

// TestRealScripts runs what testdata/script says, each script with a state of its own, jailed, with guests of a few instructions.
func TestRealScripts(t *testing.T) {
	p := ring.Real(t)
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			dir, err := os.MkdirTemp("", "microvm-script-")
			if err != nil {
				return err
			}
			variables := map[string]string{
				"MICROVM_FIRECRACKER_BIN": p.Firecracker, "MICROVM_STATE_DIR": filepath.Join(dir, "state"), "MICROVM_SOCKET_DIR": filepath.Join(dir, "run"),
				"MICROVM_JAILER_CGROUP_PARENT": leak.Slice(filepath.Base(dir)), "MICROVM_KERNEL": filepath.Join(dir, "runs"), "MICROVM_MEM_MIB": "128",
				"GORACE": "atexit_sleep_ms=0", // else each command waits a second for races to be told
				hostEnv:  filepath.Join(dir, "host.net"),
				"ENDS":   filepath.Join(dir, "ends"), "CRASHES": filepath.Join(dir, "crashes"), "DIR": dir,
			}
			if err := makeHost(variables[hostEnv]); err != nil {
				return err
			}
			for name, after := range map[string]tinyguest.After{"runs": tinyguest.Halt, "ends": tinyguest.Reset, "crashes": tinyguest.Crash} {
				if err := tinyguest.Write(filepath.Join(dir, name), tinyguest.Program{Text: "tiny guest " + name + "\n", After: after}); err != nil {
					return err
				}
			}
			for name, value := range variables {
				env.Setenv(name, value)
			}
			env.Defer(func() { cleanUp(t, dir, variables) })
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){"code": code, "until": until, "key": makeKey},
	})
}

// cleanUp checks that a purge leaves nothing.
func cleanUp(t *testing.T, dir string, variables map[string]string) {
	options, err := firecracker.OptionsFromEnv(func(name string) (string, bool) {
		value, ok := variables[name]
		return value, ok
	})
	if err != nil {
		t.Error(err)
	}
	purge := exec.Command("microvm", "purge", "--yes")
	purge.Env = os.Environ()
	for name, value := range variables {
		purge.Env = append(purge.Env, name+"="+value)
	}
	if said, err := purge.CombinedOutput(); err != nil {
		t.Errorf("purge: %v\n%s", err, said)
	}
	if err := netns.Remove(variables[hostEnv]); err != nil {
		t.Error(err)
	}
	census, err := inventory.Take(inventory.Options{Slice: options.Slice, Under: dir, Roots: []string{options.StateDir, options.SocketDir}})
	if err != nil {
		t.Error(err)
	}
	for _, item := range census {
		if item.Kind == "process" || item.Kind == "mount" || item.Kind == "cgroup" || item.Kind == "file" || item.Kind == "dir" {
			t.Errorf("left behind: %+v", item)
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Error(err)
	}
}

// code runs a command and checks the status that it exits with: "code 125 microvm start nobody".
func code(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code STATUS COMMAND [ARG...]")
	}
	want, err := strconv.Atoi(args[0])
	if err != nil {
		ts.Fatalf("%v", err)
	}
	got := 0
	err = ts.Exec(args[1], args[2:]...)
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if got != want {
		ts.Fatalf("%q exits with %d, want %d", args[1:], got, want)
	}
}

// until runs a command again until it prints a text, such as what a guest takes a moment to say: "until 'tiny guest' microvm console one". What it printed last is stdout then.
func until(ts *testscript.TestScript, neg bool, args []string) {
	const patience = 20 * time.Second
	if neg || len(args) < 2 {
		ts.Fatalf("usage: until TEXT COMMAND [ARG...]")
	}
	for deadline := time.Now().Add(patience); ; {
		if err := ts.Exec(args[1], args[2:]...); err != nil {
			ts.Fatalf("%v", err)
		}
		if strings.Contains(ts.ReadFile("stdout"), args[0]) {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%q has not printed %q within %v", args[1:], args[0], patience)
		}
	}
}
