//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tangle-network/microvm-runtime/internal/testing/lab"
)

const (
	passed  = mark + "=== RUN   TestOne\n" + mark + "--- PASS: TestOne (0.00s)\n"
	passing = passed + mark + "PASS\n"
	failed  = mark + "=== RUN   TestTwo\n" + mark + "--- FAIL: TestTwo (0.00s)\n"
	failing = failed + mark + "FAIL\n"
	begun   = mark + "=== RUN   TestThree\n"
)

func tool(t *testing.T) test2json {
	t.Helper()
	tool, err := findTest2json(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return tool
}

// TestEveryJobsFailureIsTold: of jobs that leak, pass, fail, and never end, none hides another.
func TestEveryJobsFailureIsTold(t *testing.T) {
	status := func(n int) *int { return &n }
	heard := newTally()
	l := &listener{ctx: t.Context(), tool: tool(t), tally: heard, converters: map[int]*converter{}, jobs: []lab.Job{{Name: "leaks"}, {Name: "passes"}, {Name: "fails"}, {Name: "hangs"}}}
	for _, e := range []lab.Event{
		{Boot: "3.1"},
		{Job: 0, Data: []byte(passing)}, {Job: 0, Data: []byte("left behind: all\n")}, {Job: 0, Exit: status(1)},
		{Job: 1, Data: []byte(passed)}, {Job: 2, Data: []byte(passing)}, {Job: 3, Data: []byte(begun)}, // two labs
		{Job: 1, Data: []byte(mark + "PASS\n")}, {Job: 2, Data: []byte(failing)}, {Job: 1, Exit: status(0)}, {Job: 2, Exit: status(1)},
	} {
		l.hear(e)
	}
	l.finishAll()
	err := errors.Join(l.errs...)
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"leaks ended with status 1", "fails ended with status 1", "hangs ended with status -1"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q lacks %q", err, want)
		}
	}
	if strings.Contains(err.Error(), "passes") {
		t.Errorf("error %q is about a job that passed", err)
	}
	if heard.passed != 3 || heard.failed != 3 {
		t.Errorf("%d passed and %d failed, want 3 and 3", heard.passed, heard.failed)
	}
}

// TestAStalledHostsJobRunsOnceMore: what its first attempt said counts for nothing, what other jobs said stays, of the other lab too.
func TestAStalledHostsJobRunsOnceMore(t *testing.T) {
	status := func(n int) *int { return &n }
	heard := newTally()
	l := &listener{ctx: t.Context(), tool: tool(t), tally: heard, converters: map[int]*converter{}, jobs: []lab.Job{{Name: "before"}, {Name: "stalls"}, {Name: "beside"}}}
	for _, e := range []lab.Event{
		{Job: 0, Data: []byte(passing)}, {Job: 0, Exit: status(0)},
		{Job: 1, Data: []byte(passed + begun)}, {Lab: 2, Job: 2, Data: []byte(passed)}, {Job: 1, Halt: "it stood still"},
		{Boot: "3.1"},
		{Job: 1, Data: []byte(passing)}, {Lab: 2, Job: 2, Data: []byte(mark + "PASS\n")}, {Lab: 2, Job: 2, Exit: status(0)}, {Job: 1, Exit: status(0)},
		{Lab: 2, Job: lab.NoJob, Halt: "it stood still"},
	} {
		l.hear(e)
	}
	l.finishAll()
	if err := errors.Join(l.errs...); err != nil {
		t.Error(err)
	}
	if heard.passed != 3 || heard.failed != 0 {
		t.Errorf("%d passed and %d failed, want 3 and 0", heard.passed, heard.failed)
	}
}

// TestAFailureIsNotRunAway: a test that failed before its host stood still is an error, also when it passes the second time.
func TestAFailureIsNotRunAway(t *testing.T) {
	status := func(n int) *int { return &n }
	heard := newTally()
	l := &listener{ctx: t.Context(), tool: tool(t), tally: heard, converters: map[int]*converter{}, jobs: []lab.Job{{Name: "stalls"}}}
	for _, e := range []lab.Event{
		{Data: []byte(failed + begun)}, {Halt: "it stood still"},
		{Data: []byte(passing)}, {Exit: status(0)},
	} {
		l.hear(e)
	}
	if err := errors.Join(l.errs...); err == nil || !strings.Contains(err.Error(), "stalls: 1 tests had failed") {
		t.Errorf("error %v, want that of the test that failed", err)
	}
	if heard.passed != 1 || heard.failed != 0 {
		t.Errorf("%d passed and %d failed in the attempt that counts, want 1 and 0", heard.passed, heard.failed)
	}
}

// TestEachTestIsAJob: a binary says what its tests are; one that has none, or fails, is an error.
func TestEachTestIsAJob(t *testing.T) {
	for says, want := range map[string]string{
		"echo TestLabOne; echo TestLabTwo; echo PASS": "[TestLabOne TestLabTwo]",
		"echo PASS": "",
		"echo TestLabOne; echo left behind: all; exit 1": "",
	} {
		binary := filepath.Join(t.TempDir(), "x.test")
		if err := os.WriteFile(binary, []byte("#!/bin/sh\n[ \"$*\" = -test.list=^TestLab ] || exit 2\n"+says+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		got, err := listTests(t.Context(), binary, ".", "TestLab")
		if (err != nil) != (want == "") || err == nil && fmt.Sprint(got) != want {
			t.Errorf("%s: tests %q, error %v", says, got, err)
		}
	}
}
