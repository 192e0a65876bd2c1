//go:build linux

// Command agentready boots guests where real ones run, by turns: one with the agent, and one of busybox that loads the same modules and does nothing else. Both boot the same
// kernel on the same Firecracker with the same devices. It prints what each guest's boot clock said when it was ready, as one line of JSON.
//
// It takes its parts from the environment, as labrun gives them.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/firecracker"
	"github.com/tangle-network/microvm-runtime/guest"
	"github.com/tangle-network/microvm-runtime/internal/testing/busyguest"
)

// boots is what is printed.
type boots struct {
	Agent   []float64 `json:"agent"`   // Seconds.
	Busybox []float64 `json:"busybox"` // Seconds.
	Modules []string  `json:"modules"` // That both load.
}

const bootPatience = time.Minute

func main() {
	n := flag.Int("n", 15, "boots of each guest")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	result, err := run(ctx, *n)
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(result)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "agentready:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, n int) (result boots, err error) {
	dir, err := os.MkdirTemp("", "agentready-")
	if err != nil {
		return result, err
	}
	defer os.RemoveAll(dir)
	options, err := firecracker.OptionsFromEnv(os.LookupEnv)
	if err != nil {
		return result, err
	}
	options.StateDir, options.SocketDir, options.Bare, options.Slice = filepath.Join(dir, "state"), filepath.Join(dir, "run"), true, "/microvm-agentready.slice"
	rt, err := firecracker.New(options)
	if err != nil {
		return result, err
	}
	defer func() {
		_, purged := firecracker.Purge(context.WithoutCancel(ctx), options)
		err = errors.Join(err, rt.Close(), purged)
	}()
	if result.Modules, err = loaded(ctx, rt); err != nil {
		return result, err
	}
	initrd := filepath.Join(dir, "busybox.cpio")
	if err := writeBusybox(initrd, options.Modules, result.Modules); err != nil {
		return result, err
	}
	for i := range n + 1 {
		agent, _, err := boot(ctx, rt, microvm.Spec{})
		if err != nil {
			return result, fmt.Errorf("agent: %w", err)
		}
		busybox, modules, err := boot(ctx, rt, microvm.Spec{Image: options.Image, Initrd: initrd})
		if err != nil {
			return result, fmt.Errorf("busybox: %w", err)
		}
		if !slices.Equal(modules, result.Modules) {
			return result, fmt.Errorf("the agent's guest has modules %q, and busybox's %q", result.Modules, modules)
		}
		if i > 0 { // caches fill at the first
			result.Agent, result.Busybox = append(result.Agent, agent), append(result.Busybox, busybox)
		}
	}
	return result, nil
}

// loaded returns the names of the modules that the agent's guest has, sorted.
func loaded(ctx context.Context, rt *microvm.Runtime) (names []string, err error) {
	vm, err := rt.Create(ctx, "modules", microvm.Spec{})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, vm.Destroy(context.WithoutCancel(ctx))) }()
	if err := vm.Start(ctx, nil); err != nil {
		return nil, err
	}
	out, err := guest.Command(vm, "cat", "/proc/modules").Output(ctx)
	return namesIn(string(out)), err
}

// namesIn returns the names in a text of /proc/modules.
func namesIn(text string) []string {
	names := map[string]bool{}
	for line := range strings.Lines(text) {
		name, _, _ := strings.Cut(line, " ")
		names[name] = true
	}
	return slices.Sorted(maps.Keys(names))
}

// writeBusybox writes a guest that says when it has loaded the modules, and then which it has.
func writeBusybox(path, tree string, modules []string) error {
	return busyguest.WriteInitrd(path, busyguest.Guest{
		Busybox: os.Getenv("MICROVM_TEST_BUSYBOX"), Modules: tree, Load: modules,
		First: `read up idle < /proc/uptime; echo "busybox ready after $up s"` + "\n",
		Script: `while read name rest; do echo "module $name"; done < /proc/modules; echo "that is all"` + "\n" +
			"while :; do sleep 1000; done\n",
	})
}

var readyLine = regexp.MustCompile(`^(microvm-agent|busybox) ready after ([0-9.]+) s`)

// boot boots a machine until its guest says that it is ready, and busybox which modules it has. Nobody asks the guest anything meanwhile: it would cost the guest time.
func boot(ctx context.Context, rt *microvm.Runtime, spec microvm.Spec) (seconds float64, modules []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, bootPatience)
	defer cancel()
	vm, err := rt.Create(ctx, "guest", spec)
	if err != nil {
		return 0, nil, err
	}
	defer func() { err = errors.Join(err, vm.Destroy(context.WithoutCancel(ctx))) }()
	if err := vm.Start(ctx, &microvm.StartOptions{NoWait: true}); err != nil {
		return 0, nil, err
	}
	console, err := vm.Console(ctx, &microvm.ConsoleOptions{Follow: true})
	if err != nil {
		return 0, nil, err
	}
	defer console.Close()
	var seen strings.Builder
	lines := bufio.NewScanner(console)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		fmt.Fprintln(&seen, line)
		if m := readyLine.FindStringSubmatch(line); m != nil {
			if seconds, err = strconv.ParseFloat(m[2], 64); err != nil || m[1] != "busybox" {
				return seconds, nil, err
			}
		}
		if name, ok := strings.CutPrefix(line, "module "); ok {
			modules = append(modules, name)
		}
		if line == "that is all" {
			slices.Sort(modules)
			return seconds, modules, nil
		}
	}
	return 0, nil, fmt.Errorf("it did not become ready: %w\nconsole:\n%s", lines.Err(), seen.String())
}
