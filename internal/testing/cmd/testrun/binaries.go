//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// binary is a package's tests as a program.
type binary struct {
	pkg, path string
	tests     []string // Of one ring, in the order of the files.
}

// binaries compiles the tests of packages, some at a time. What it makes is in dir.
func binaries(ctx context.Context, dir string, packages []string, prefix string, env []string, flags ...string) ([]binary, error) {
	made := make([]binary, len(packages))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.NumCPU())
	for i, pkg := range packages {
		group.Go(func() error {
			path := filepath.Join(dir, fmt.Sprintf("%d.test", i))
			cmd := exec.CommandContext(ctx, "go", slices.Concat([]string{"test", "-c", "-o", path}, flags, []string{pkg})...)
			cmd.Env = append(os.Environ(), env...)
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("compile %s: %w\n%s", pkg, err, out)
			}
			tests, err := listTests(ctx, path, pkg, prefix)
			made[i] = binary{pkg, path, tests}
			return err
		})
	}
	return made, group.Wait()
}

// listTests returns the names of a binary's tests of a prefix, of which there must be some.
func listTests(ctx context.Context, path, dir, prefix string) ([]string, error) {
	cmd := exec.CommandContext(ctx, path, "-test.list=^"+prefix)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), raceAtExit)
	out, err := cmd.Output()
	var tests []string
	for line := range strings.Lines(string(out)) {
		if name := strings.TrimSpace(line); strings.HasPrefix(name, prefix) {
			tests = append(tests, name)
		}
	}
	if err != nil || len(tests) == 0 {
		return nil, fmt.Errorf("%d tests %s… in %s, error %v:\n%s", len(tests), prefix, dir, err, out)
	}
	return tests, nil
}

// testArgs has a binary run what a pattern says, as test2json reads it.
func testArgs(pattern string, timeout time.Duration) []string {
	return []string{"-test.v=test2json", "-test.run=" + pattern, "-test.timeout=" + timeout.String()}
}
