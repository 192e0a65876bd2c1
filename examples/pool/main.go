//go:build linux

// Command pool serves jobs from machines that wait: each line of standard input is a shell command, which runs in a machine of its own that is gone afterwards.
//
// It takes its options from the environment, as the microvm command does: MICROVM_IMAGE is what to boot.
//
//	printf '%s\n' 'uname -r' 'cat /etc/machine-id' | go run ./examples/pool
package main

import (
	"bufio"
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
	"github.com/tangle-network/microvm-runtime/warmpool"
)

func main() {
	firecracker.Helper() // first: helpers are this program, started once more
	size := flag.Int("size", 2, "how many machines wait")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdin, os.Stdout, *size); err != nil {
		fmt.Fprintln(os.Stderr, "pool:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, in io.Reader, out io.Writer, size int) (err error) {
	rt, err := firecracker.FromEnv()
	if err != nil {
		return err
	}
	defer rt.Close()
	snapshot, err := template(ctx, rt)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rt.DeleteSnapshot(context.WithoutCancel(ctx), snapshot)) }()
	pool, err := warmpool.Open(ctx, rt, "example", snapshot, &warmpool.Options{Size: size})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, pool.Drain(context.WithoutCancel(ctx)), pool.Close()) }()
	if err := pool.Fill(ctx); err != nil {
		return err
	}
	serve(ctx, pool, in, out)
	status := pool.Status()
	fmt.Fprintf(out, "%d machines had waited, %d had to be made first\n", status.Warm, status.Cold)
	return nil
}

// template boots a machine, warms it up, and writes it down: an operator does that once, and keeps the snapshot.
func template(ctx context.Context, rt *microvm.Runtime) (snapshot string, err error) {
	vm, err := rt.Create(ctx, fmt.Sprint("template-", time.Now().UnixNano()), microvm.Spec{Network: &microvm.Network{None: true}})
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, vm.Destroy(context.WithoutCancel(ctx))) }()
	if err := vm.Start(ctx, nil); err != nil {
		return "", err
	}
	if err := guest.Command(vm, "true").Run(ctx); err != nil {
		return "", err
	}
	info, err := vm.Snapshot(ctx, "warm", nil)
	return info.UID, err
}

// serve runs each line in a machine of its own, all at once.
func serve(ctx context.Context, pool *warmpool.Pool, in io.Reader, out io.Writer) {
	var mu sync.Mutex // of out
	var jobs sync.WaitGroup
	lines := bufio.NewScanner(in)
	for n := 1; lines.Scan() && ctx.Err() == nil; n++ {
		name, command := fmt.Sprintf("job-%d-%d", os.Getpid(), n), lines.Text()
		jobs.Go(func() {
			said, err := job(ctx, pool, name, command)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				said = fmt.Sprint(said, " (", err, ")")
			}
			fmt.Fprintf(out, "%s: %s\n", command, said)
		})
	}
	jobs.Wait()
}

// job runs a command in a machine from the pool.
func job(ctx context.Context, pool *warmpool.Pool, name, command string) (said string, err error) {
	begin := time.Now()
	vm, _, err := pool.Take(ctx, name, &microvm.ClaimOptions{Env: map[string]string{"JOB": name}})
	if err != nil {
		return "", err
	}
	taken := time.Since(begin)
	defer func() { err = errors.Join(err, vm.Destroy(context.WithoutCancel(ctx))) }()
	text, err := guest.Command(vm, "sh", "-c", command).CombinedOutput(ctx)
	return fmt.Sprintf("%s (had its machine after %v)", strings.TrimSpace(string(text)), taken.Round(time.Millisecond)), err
}
