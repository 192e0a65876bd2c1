//go:build linux

// Command soak lives machines for a while: it calls verbs at random on real VMMs with few-instruction guests, in this process and in others that it kills at
// any instruction, ends VMMs under the driver, cancels calls, and holds what the driver says against what may be true. It fails when the two differ, or
// when the host has changed at its end.
//
// What is chosen follows from the seed. What happens follows from the scheduler too, so the same seed is the same attack, not always the same defect.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/tangle-network/microvm-runtime/firecracker"
	"github.com/tangle-network/microvm-runtime/internal/inventory"
	"github.com/tangle-network/microvm-runtime/internal/setup"
	"github.com/tangle-network/microvm-runtime/internal/testing/tinyguest"
)

func main() {
	length := flag.Float64("minutes", 1, "how long")
	seed := flag.Uint64("seed", uint64(time.Now().UnixNano()), "what to choose")
	workers := flag.Int("workers", 4, "machines at a time")
	if len(os.Args) > 1 && os.Args[1] == "verb" {
		os.Exit(verbMain(os.Args[2:]))
	}
	flag.Parse()
	if os.Getenv(inside) == "" {
		os.Exit(again())
	}
	if err := run(time.Duration(*length*float64(time.Minute)), *seed, *workers); err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		fmt.Fprintf(os.Stderr, "soak: again with SEED=%d\n", *seed)
		os.Exit(1)
	}
}

// inside says that the process is in a network namespace of its own: what machines' networks do to a host, they do to that one.
const inside = "MICROVM_SOAK_INSIDE"

// again executes this program once more, there.
func again() int {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env, cmd.Stdout, cmd.Stderr = append(os.Environ(), inside+"=1"), os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGTERM}
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return exit.ExitCode()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		return 1
	}
	return 0
}

func run(length time.Duration, seed uint64, workers int) error {
	fmt.Printf("soak: %v, SEED=%d\n", length, seed)
	dir, err := os.MkdirTemp("", "soak-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	kernel := filepath.Join(dir, "kernel")
	if err := tinyguest.Write(kernel, tinyguest.Program{Text: "tiny guest runs\n"}); err != nil {
		return err
	}
	var errs []error
	for i, bare := range []bool{true, false} {
		options, err := optionsOf(filepath.Join(dir, fmt.Sprint(i)), kernel, bare)
		if err != nil {
			return err
		}
		errs = append(errs, runKind(length/2, seed+uint64(1000*i), workers, options))
	}
	return errors.Join(errs...)
}

// optionsOf returns the options that this process and those that it starts share.
func optionsOf(dir, kernel string, bare bool) (firecracker.Options, error) {
	cache, err := setup.DefaultCache()
	if err != nil {
		return firecracker.Options{}, err
	}
	parts, err := setup.Find(cache)
	return firecracker.Options{
		Firecracker: parts.Firecracker, Jailer: parts.Jailer, StateDir: filepath.Join(dir, "state"), SocketDir: filepath.Join(dir, "run"), Kernel: kernel, MemoryMiB: 128,
		Bare: bare, Slice: "/microvm-" + filepath.Base(filepath.Dir(dir)) + ".slice",
	}, err
}

// runKind soaks jailed or bare machines.
func runKind(length time.Duration, seed uint64, workers int, options firecracker.Options) error {
	census := inventory.Options{Slice: options.Slice}
	before, err := inventory.Take(census)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), length)
	defer cancel()
	var (
		group sync.WaitGroup
		mu    sync.Mutex
		errs  []error
		total tally
	)
	for n := range workers {
		group.Go(func() {
			w := newWorker(n, seed+uint64(n), options)
			err := w.run(ctx)
			mu.Lock()
			defer mu.Unlock()
			total.add(w.tally)
			if err != nil {
				errs = append(errs, fmt.Errorf("worker %d: %w\n%s", n, err, w.story()))
				cancel()
			}
		})
	}
	group.Wait()
	if _, err := firecracker.Purge(context.Background(), options); err != nil {
		errs = append(errs, err)
	}
	after, err := inventory.Take(census)
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	if changes := inventory.Diff(before, after); !changes.Empty() {
		errs = append(errs, fmt.Errorf("the host has changed:\n%s", changes))
	}
	fmt.Printf("soak: bare %v: %v\n", options.Bare, total)
	return errors.Join(errs...)
}
