//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tangle-network/microvm-runtime/doctor"
	"github.com/tangle-network/microvm-runtime/internal/setup"
	"github.com/tangle-network/microvm-runtime/internal/testing/lab"
)

// labTimeout is one test's share of ring 4.
const labTimeout = 5 * time.Minute

// labTest compiles the tests of ring 4 and runs them in the lab, or here where real guests run.
func (r runner) labTest(ctx context.Context, t *tally) error {
	packages, err := packagesWith("TestLab")
	if err != nil || len(packages) == 0 {
		return err
	}
	parts, err := r.parts()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "testrun-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	jobs, err := compile(ctx, dir, packages)
	if err != nil {
		return err
	}
	if doctor.ProbeKVM().RunsLinux() {
		return errors.Join(nativeJobs(ctx, t, parts, jobs), t.tested(parts.Firecracker))
	}
	return errors.Join(labJobs(ctx, t, parts, jobs), t.tested(lab.Inside(parts).Firecracker))
}

// compile makes a job of each test: what a lab's end cuts off, and runs once more, is little.
func compile(ctx context.Context, dir string, packages []string) ([]lab.Job, error) {
	var jobs []lab.Job
	for i, pkg := range packages {
		binary := filepath.Join(dir, fmt.Sprintf("%d.test", i))
		cmd := exec.CommandContext(ctx, "go", "test", "-c", "-o", binary, pkg)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("compile %s: %w\n%s", pkg, err, out)
		}
		tests, err := listTests(ctx, binary, pkg)
		if err != nil {
			return nil, err
		}
		for _, test := range tests {
			jobs = append(jobs, lab.Job{
				Name: pkg + " " + test, Program: binary, Timeout: labTimeout,
				Args: []string{"-test.v=test2json", "-test.run=^" + test + "$", "-test.timeout=" + (labTimeout - 10*time.Second).String()},
			})
		}
	}
	return jobs, nil
}

// listTests returns the names of a binary's tests of ring 4.
func listTests(ctx context.Context, binary, dir string) ([]string, error) {
	cmd := exec.CommandContext(ctx, binary, "-test.list=^TestLab")
	cmd.Dir = dir
	out, err := cmd.Output()
	var tests []string
	for line := range strings.Lines(string(out)) {
		if name := strings.TrimSpace(line); strings.HasPrefix(name, "TestLab") {
			tests = append(tests, name)
		}
	}
	if err != nil || len(tests) == 0 {
		return nil, fmt.Errorf("%d tests of ring 4 in %s, error %v:\n%s", len(tests), dir, err, out)
	}
	return tests, nil
}

// labJobs runs jobs in the lab.
func labJobs(ctx context.Context, t *tally, parts setup.Parts, jobs []lab.Job) error {
	for i := range jobs {
		jobs[i].Env = lab.Environment(lab.Inside(parts))
	}
	l := &listener{ctx: ctx, tally: t, jobs: jobs, converters: map[int]*converter{}}
	err := lab.Run(ctx, lab.Options{Parts: parts, Files: lab.Binaries(parts), Jobs: jobs, Event: l.hear})
	l.finishAll()
	return errors.Join(append(l.errs, err)...)
}

// listener makes test events of what jobs say, several of them at a time.
type listener struct {
	ctx        context.Context
	tally      *tally
	jobs       []lab.Job
	converters map[int]*converter // Of jobs that are heard.
	errs       []error
}

func (l *listener) hear(e lab.Event) {
	switch {
	case e.Boot != "":
		fmt.Printf("lab %d is up after %s s of its own clock\n", e.Lab, e.Boot)
		return
	case e.Halt != "":
		fmt.Printf("lab %d: %s\n", e.Lab, e.Halt)
		l.discard(e.Job)
		return
	}
	if l.converters[e.Job] == nil {
		c, err := convert(l.ctx, l.tally, l.jobs[e.Job].Name)
		if err != nil {
			l.errs = append(l.errs, err)
			return
		}
		l.converters[e.Job] = c
	}
	l.converters[e.Job].in.Write(e.Data)
	if e.Exit != nil {
		l.finish(e.Job, *e.Exit)
	}
}

// finish ends a job that is heard with its status.
func (l *listener) finish(job, status int) {
	l.errs = append(l.errs, l.converters[job].end(status))
	delete(l.converters, job)
}

// finishAll ends jobs that the lab's own end has cut off.
func (l *listener) finishAll() {
	for _, job := range slices.Sorted(maps.Keys(l.converters)) {
		l.finish(job, -1)
	}
}

// discard ends a job, if it is heard, as if it had not begun: it runs once more. What it said to have failed has failed.
func (l *listener) discard(job int) {
	if c := l.converters[job]; c != nil {
		l.errs = append(l.errs, c.discard())
		delete(l.converters, job)
	}
}

// nativeJobs runs jobs here.
func nativeJobs(ctx context.Context, t *tally, parts setup.Parts, jobs []lab.Job) error {
	var errs []error
	for _, job := range jobs {
		c, err := convert(ctx, t, job.Name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		cmd := exec.CommandContext(ctx, job.Program, job.Args...)
		cmd.Env = append(os.Environ(), lab.Environment(parts)...)
		cmd.Stdout, cmd.Stderr = c.in, c.in
		if err := cmd.Run(); cmd.ProcessState == nil {
			fmt.Fprintln(c.in, err)
		}
		errs = append(errs, c.end(cmd.ProcessState.ExitCode()))
	}
	return errors.Join(errs...)
}
