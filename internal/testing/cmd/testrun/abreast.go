//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"sync"
	"time"
)

const (
	// abreast is how many tests of a ring that shares the host run at a time: each in a process of its own, with files, cgroups and namespaces of its own. They wait for the
	// kernel, which takes its time to close a socket of netlink or to flush a file, far more than they compute. Of each, as many parallel subtests run at a time.
	abreast = 4

	testTimeout = 10 * time.Minute // as go test's

	// raceAtExit has a program that ends not wait for a second for races to be told: tests leave no goroutine behind that could race then.
	raceAtExit = "GORACE=atexit_sleep_ms=0"
)

// program is one test as a program that runs here.
type program struct {
	name, path, dir string
	args, env       []string
}

// testAbreast runs each test of a ring by itself. What it leaves on the host fails it (package leak).
func testAbreast(ctx context.Context, t *tally, ring, prefix string, env []string) error {
	packages, err := packagesWith(prefix)
	if err != nil || len(packages) == 0 {
		return err
	}
	dir, err := os.MkdirTemp("", "testrun-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	built, err := binaries(ctx, dir, packages, prefix, nil, "-race")
	if err != nil {
		return err
	}
	var programs []program
	for _, b := range built {
		for _, test := range b.tests {
			args := append(testArgs(test, testTimeout), "-test.paniconexit0", fmt.Sprint("-test.parallel=", abreast))
			programs = append(programs, program{b.pkg + " " + test, b.path, b.pkg, args, append(slices.Clone(env), "MICROVM_TEST_RING="+ring, raceAtExit)})
		}
	}
	return runAll(ctx, t, longestFirst(programs, func(p program) string { return p.name }), abreast)
}

// runAll runs programs, n at a time, in their order.
func runAll(ctx context.Context, t *tally, programs []program, n int) error {
	tool, err := findTest2json(ctx)
	if err != nil {
		return err
	}
	next := make(chan program)
	var mu sync.Mutex
	var errs []error
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			for p := range next {
				own := newTally()
				err := p.run(ctx, tool, own)
				mu.Lock()
				t.add(own)
				errs = append(errs, err)
				mu.Unlock()
			}
		})
	}
	for _, p := range programs {
		if ctx.Err() == nil {
			next <- p
		}
	}
	close(next)
	all.Wait()
	return errors.Join(append(errs, ctx.Err())...)
}

// run runs a program, and counts what it says.
func (p program) run(ctx context.Context, tool test2json, t *tally) error {
	c, err := tool.convert(ctx, t, p.name)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, p.path, p.args...)
	cmd.Dir, cmd.Env = p.dir, append(os.Environ(), p.env...)
	cmd.Stdout, cmd.Stderr = c.in, c.in
	cmd.WaitDelay = time.Minute // for those that have its output still
	err = cmd.Run()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		err = nil // its status says it
	}
	return errors.Join(err, c.end(cmd.ProcessState.ExitCode()))
}
