//go:build linux

// Command forks warms a Python up in one machine and goes on from there in many at once: each answers at once, with random numbers of its own.
//
// It takes its options from the environment, as the microvm command does: MICROVM_IMAGE is what to boot, which must have python3.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/firecracker"
	"github.com/tangle-network/microvm-runtime/guest"
)

// warmed is what takes long to begin: an interpreter with its modules, and what it has computed. It answers orders by two pipes.
const warmed = `
import os, random
primes = [n for n in range(2, 20000) if all(n % d for d in range(2, int(n ** 0.5) + 1))]
while True:
    with open("/run/orders") as orders:
        order = int(orders.read())
    random.seed(os.urandom(32))  # what was seeded before a fork all have; os.urandom is the kernel's, which is each machine's own
    hits = sum(random.random() ** 2 + random.random() ** 2 < 1 for _ in range(10000))
    with open("/run/answers", "w") as answers:
        print(f"order {order}: prime number {order} is {primes[order - 1]}, pi is about {hits / 2500}, drew {os.urandom(8).hex()} and {random.getrandbits(64):016x}", file=answers)
`

func main() {
	firecracker.Helper() // first: helpers are this program, started once more
	n := flag.Int("n", 20, "how many machines go on")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout, *n); err != nil {
		fmt.Fprintln(os.Stderr, "forks:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, n int) error {
	rt, err := firecracker.FromEnv()
	if err != nil {
		return err
	}
	defer rt.Close()
	name := fmt.Sprint("forks-", time.Now().UnixNano())
	vm, err := rt.Create(ctx, name, microvm.Spec{Network: &microvm.Network{None: true}})
	if err != nil {
		return err
	}
	defer vm.Destroy(context.WithoutCancel(ctx))
	begin := time.Now()
	if err := warm(ctx, vm); err != nil {
		return err
	}
	fmt.Fprintf(out, "one machine booted and warmed up in %v\n", time.Since(begin).Round(time.Millisecond))

	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprint(name, "-", i+1)
	}
	begin = time.Now()
	forks, err := vm.Fork(ctx, names, nil)
	defer destroy(context.WithoutCancel(ctx), forks)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%d went on from there in %v\n", n, time.Since(begin).Round(time.Millisecond))
	return ask(ctx, out, forks)
}

// warm starts the program and returns when it answers.
func warm(ctx context.Context, vm *microvm.VM) error {
	if err := vm.Start(ctx, nil); err != nil {
		return err
	}
	if err := guest.Command(vm, "mkfifo", "/run/orders", "/run/answers").Run(ctx); err != nil {
		return err
	}
	program := guest.Command(vm, "python3", "-c", warmed)
	program.ID, program.Detached = "warmed", true
	if err := program.Start(ctx); err != nil {
		return err
	}
	_, err := order(ctx, vm, 1)
	return err
}

// order gives the program in a machine a number, and returns what it says.
func order(ctx context.Context, vm *microvm.VM, number int) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute) // should the program end, nobody answers
	defer cancel()
	out, err := guest.Command(vm, "sh", "-c", "echo $0 >/run/orders; cat /run/answers", fmt.Sprint(number)).CombinedOutput(ctx)
	return strings.TrimSpace(string(out)), err
}

// ask asks all forks at once, and prints what they say in their order.
func ask(ctx context.Context, out io.Writer, forks []microvm.Forked) error {
	said, errs := make([]string, len(forks)), make([]error, len(forks))
	var asking sync.WaitGroup
	for i, fork := range forks {
		asking.Go(func() {
			if errs[i] = fork.Err; errs[i] == nil {
				said[i], errs[i] = order(ctx, fork.VM, i+1)
			}
		})
	}
	asking.Wait()
	for i, fork := range forks {
		if errs[i] != nil {
			errs[i] = fmt.Errorf("%s: %w", fork.Name, errs[i])
			continue
		}
		fmt.Fprintln(out, fork.Name, said[i])
	}
	return errors.Join(errs...)
}

func destroy(ctx context.Context, forks []microvm.Forked) {
	var destroying sync.WaitGroup
	for _, fork := range forks {
		if fork.VM != nil {
			destroying.Go(func() { fork.VM.Destroy(ctx) })
		}
	}
	destroying.Wait()
}
