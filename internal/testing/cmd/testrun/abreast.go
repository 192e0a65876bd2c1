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
	// kernel, which takes its time to close a socket of netlink or to flush a file, far more than they compute.
	abreast = 3

	// memoryEach is where the garbage collector is let in, in bytes: with it three programs have room where one had (the race detector takes thrice as much again).
	memoryEach = 768 << 20

	testTimeout = 10 * time.Minute // as go test's

	// raceAtExit has a program that ends not wait for a second for races to be told: tests leave no goroutine behind that could race then.
	raceAtExit = "GORACE=atexit_sleep_ms=0"
)

// program is a package's tests, or one of them, as a program that runs here.
type program struct {
	name, path, dir string
	args, env       []string
}

// testPackages runs the tests of a ring one package after the other: they share the host.
func testPackages(ctx context.Context, t *tally, ring, prefix string) error {
	return testHost(ctx, t, prefix, 1, func(b binary) []program {
		return []program{b.program(b.pkg, "^"+prefix, ring, nil)}
	})
}

// testAbreast runs each test of a ring by itself, some at a time. What it leaves on the host fails it (package leak).
func testAbreast(ctx context.Context, t *tally, ring, prefix string, env []string) error {
	env = append(slices.Clone(env), fmt.Sprint("GOMEMLIMIT=", memoryEach))
	return testHost(ctx, t, prefix, abreast, func(b binary) (programs []program) {
		for _, test := range b.tests {
			programs = append(programs, b.program(b.pkg+" "+test, "^"+test+"$", ring, env))
		}
		return programs
	})
}

// program is a binary that runs what a pattern says.
func (b binary) program(name, pattern, ring string, env []string) program {
	args := append(testArgs(pattern, testTimeout), "-test.paniconexit0")
	return program{name, b.path, b.pkg, args, append(slices.Clone(env), "MICROVM_TEST_RING="+ring, raceAtExit)}
}

// testHost compiles the tests of a prefix, all before the first runs, and runs the programs that they make, n at a time.
func testHost(ctx context.Context, t *tally, prefix string, n int, programs func(binary) []program) error {
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
	var all []program
	for _, b := range built {
		all = append(all, programs(b)...)
	}
	return runAll(ctx, t, longestFirst(all, func(p program) string { return p.name }), n)
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
