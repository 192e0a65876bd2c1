//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/tangle-network/microvm-runtime/internal/setup"
	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
)

// runner runs rings.
type runner struct {
	firecracker string // Another firecracker than that of the parts, which rings 3 and 4 test. Absolute.
}

func (r runner) ring(ctx context.Context, name string) (*tally, error) {
	t := newTally()
	switch name {
	case "1":
		return t, goTest(ctx, t, "1", "-race", "-skip", "^Test(Host|Real|Lab)", "./...")
	case "2":
		return t, testPackages(ctx, t, "2", "TestHost")
	case "3":
		return t, r.realTest(ctx, t)
	case "4":
		return t, r.labTest(ctx, t)
	}
	return t, fmt.Errorf("there is no such ring")
}

// parts returns where things are, with the firecracker that is to be tested.
func (r runner) parts() (setup.Parts, error) {
	cache, err := setup.DefaultCache()
	if err != nil {
		return setup.Parts{}, err
	}
	p, err := setup.Find(cache)
	if err != nil || r.firecracker == "" {
		return p, err
	}
	p.Firecracker, p.Jailer = r.firecracker, ring.Jailer(r.firecracker)
	for _, path := range []string{p.Firecracker, p.Jailer} {
		if _, err := os.Stat(path); err != nil {
			return p, fmt.Errorf("%w (a firecracker is tested with the jailer beside it)", err)
		}
	}
	return p, nil
}

// realTest runs ring 3.
func (r runner) realTest(ctx context.Context, t *tally) error {
	p, err := r.parts()
	if err != nil {
		return err
	}
	err = testAbreast(ctx, t, "3", "TestReal", []string{"MICROVM_TEST_FIRECRACKER=" + p.Firecracker})
	return errors.Join(err, t.tested(p.Firecracker))
}

func goTest(ctx context.Context, t *tally, ring string, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", append([]string{"test", "-json", "-count=1", "-timeout=10m"}, args...)...)
	cmd.Env = append(os.Environ(), "MICROVM_TEST_RING="+ring, raceAtExit)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	t.read(out)
	if err := cmd.Wait(); err != nil && t.failed == 0 {
		return fmt.Errorf("go test: %w", err)
	}
	return nil
}

// packagesWith returns the packages that have a test of the prefix.
func packagesWith(prefix string) ([]string, error) {
	pattern := regexp.MustCompile(`(?m)^func ` + prefix)
	found := map[string]bool{}
	err := filepath.WalkDir(".", func(path string, entry os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && path != "." && (strings.HasPrefix(entry.Name(), ".") || entry.Name() == "testdata" || isModule(path)) {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		text, err := os.ReadFile(path)
		if pattern.Match(text) {
			found["./"+filepath.Dir(path)] = true
		}
		return err
	})
	return sortedKeys(found), err
}

func isModule(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "go.mod"))
	return err == nil
}
