//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
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
	built, err := binaries(ctx, dir, packages, "TestLab", []string{"CGO_ENABLED=0"})
	if err != nil {
		return err
	}
	jobs := longestFirst(labTests(built), func(job lab.Job) string { return job.Name })
	if doctor.ProbeKVM().RunsLinux() {
		return errors.Join(runAll(ctx, t, programs(parts, jobs), 1), t.tested(parts.Firecracker))
	}
	return errors.Join(labJobs(ctx, t, parts, jobs), t.tested(lab.Inside(parts).Firecracker))
}

// labTests makes a job of each test: what a lab's end cuts off, and runs once more, is little.
func labTests(built []binary) (jobs []lab.Job) {
	for _, b := range built {
		for _, test := range b.tests {
			jobs = append(jobs, lab.Job{Name: b.pkg + " " + test, Program: b.path, Timeout: labTimeout, Args: testArgs("^"+test+"$", labTimeout-10*time.Second)})
		}
	}
	return jobs
}

// labJobs runs jobs in the lab.
func labJobs(ctx context.Context, t *tally, parts setup.Parts, jobs []lab.Job) error {
	for i := range jobs {
		jobs[i].Env = lab.Environment(lab.Inside(parts))
	}
	tool, err := findTest2json(ctx)
	if err != nil {
		return err
	}
	l := &listener{ctx: ctx, tool: tool, tally: t, jobs: jobs, converters: map[int]*converter{}}
	err = lab.Run(ctx, lab.Options{Parts: parts, Files: lab.Binaries(parts), Jobs: jobs, Event: l.hear})
	l.finishAll()
	return errors.Join(append(l.errs, err)...)
}

// listener makes test events of what jobs say, several of them at a time.
type listener struct {
	ctx        context.Context
	tool       test2json
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
		c, err := l.tool.convert(l.ctx, l.tally, l.jobs[e.Job].Name)
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

// programs are jobs that run here.
func programs(parts setup.Parts, jobs []lab.Job) (programs []program) {
	for _, job := range jobs {
		programs = append(programs, program{name: job.Name, path: job.Program, args: job.Args, env: lab.Environment(parts)})
	}
	return programs
}
