//go:build linux

package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/tangle-network/microvm-runtime/doctor"
	"github.com/tangle-network/microvm-runtime/internal/setup"
	"github.com/tangle-network/microvm-runtime/internal/testing/lab"
)

// labTimeout is one package's share of ring 4.
const labTimeout = 8 * time.Minute

func runRing(ctx context.Context, ring string) (*tally, error) {
	t := newTally()
	switch ring {
	case "1":
		return t, goTest(ctx, t, "1", "-race", "-skip", "^Test(Host|Real|Lab)", "./...")
	case "2":
		return t, goTestIn(ctx, t, "2", "TestHost")
	case "3":
		return t, goTestIn(ctx, t, "3", "TestReal")
	case "4":
		return t, labTest(ctx, t)
	}
	return t, fmt.Errorf("there is no such ring")
}

// goTestIn runs the tests of a ring one package after the other: they share the host.
func goTestIn(ctx context.Context, t *tally, ring, prefix string) error {
	packages, err := packagesWith(prefix)
	if err != nil || len(packages) == 0 {
		return err
	}
	return goTest(ctx, t, ring, append([]string{"-race", "-p", "1", "-run", "^" + prefix}, packages...)...)
}

func goTest(ctx context.Context, t *tally, ring string, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", append([]string{"test", "-json", "-count=1", "-timeout=10m"}, args...)...)
	cmd.Env = append(os.Environ(), "MICROVM_TEST_RING="+ring)
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

// labTest compiles the tests of ring 4 and runs them in the lab, or here where real guests run.
func labTest(ctx context.Context, t *tally) error {
	packages, err := packagesWith("TestLab")
	if err != nil || len(packages) == 0 {
		return err
	}
	cache, err := setup.DefaultCache()
	if err != nil {
		return err
	}
	parts, err := setup.Find(cache)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "testrun-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	options := lab.Options{Parts: parts, Files: lab.Binaries(parts)}
	for i, pkg := range packages {
		binary := filepath.Join(dir, fmt.Sprintf("%d.test", i))
		cmd := exec.CommandContext(ctx, "go", "test", "-c", "-o", binary, pkg)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("compile %s: %w\n%s", pkg, err, out)
		}
		options.Jobs = append(options.Jobs, lab.Job{
			Name: pkg, Program: binary, Timeout: labTimeout, Args: []string{"-test.v=test2json", "-test.run=^TestLab", "-test.timeout=" + (labTimeout - 10*time.Second).String()},
		})
	}
	if doctor.ProbeKVM().RunsLinux() {
		return nativeJobs(ctx, t, parts, options.Jobs)
	}
	return labJobs(ctx, t, options)
}

// labJobs turns what each job says into test events.
func labJobs(ctx context.Context, t *tally, options lab.Options) error {
	for i := range options.Jobs {
		options.Jobs[i].Env = append(lab.Environment(lab.Inside(options.Parts)), "MICROVM_TEST_RING=4")
	}
	var converter *converter
	current := -1
	var failed error
	options.Event = func(e lab.Event) {
		if e.Boot != "" {
			fmt.Printf("the lab is up after %s s of its own clock\n", e.Boot)
			return
		}
		if e.Job != current {
			current = e.Job
			converter, failed = convert(ctx, t, options.Jobs[e.Job].Name)
		}
		if converter == nil {
			return
		}
		converter.in.Write(e.Data)
		if e.Exit != nil {
			failed = converter.end(*e.Exit)
		}
	}
	err := lab.Run(ctx, options)
	if err == nil && t.failed == 0 {
		err = failed
	}
	return err
}

func nativeJobs(ctx context.Context, t *tally, parts setup.Parts, jobs []lab.Job) error {
	for _, job := range jobs {
		c, err := convert(ctx, t, job.Name)
		if err != nil {
			return err
		}
		cmd := exec.CommandContext(ctx, job.Program, job.Args...)
		cmd.Env = append(append(os.Environ(), lab.Environment(parts)...), "MICROVM_TEST_RING=4")
		cmd.Stdout, cmd.Stderr = c.in, c.in
		cmd.Run()
		if err := c.end(cmd.ProcessState.ExitCode()); err != nil && t.failed == 0 {
			return err
		}
	}
	return nil
}

// converter is a test2json that makes events of a test binary's output.
type converter struct {
	name string
	cmd  *exec.Cmd
	in   *bufio.Writer
	pipe interface{ Close() error }
	done chan struct{}
}

func convert(ctx context.Context, t *tally, name string) (*converter, error) {
	cmd := exec.CommandContext(ctx, "go", "tool", "test2json", "-t", "-p", name)
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	c := &converter{name: name, cmd: cmd, in: bufio.NewWriterSize(in, 1), pipe: in, done: make(chan struct{})}
	go func() {
		defer close(c.done)
		t.read(out)
	}()
	return c, nil
}

func (c *converter) end(code int) error {
	c.in.Flush()
	c.pipe.Close()
	<-c.done
	c.cmd.Wait()
	if code != 0 {
		return fmt.Errorf("%s ended with status %d", c.name, code)
	}
	return nil
}
