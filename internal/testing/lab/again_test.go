//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// labs are runs of fake labs, one after the other, that share jobs with nobody.
type labs struct {
	share
	runs []func(*labs) error
	jobs []int    // Each that a lab began.
	told []string // What came of it.
}

func (l *labs) tell(e Event) {
	switch {
	case e.Exit != nil:
		l.told = append(l.told, fmt.Sprintf("%d exit %d", e.Job, *e.Exit))
	case e.Halt != "":
		l.told = append(l.told, fmt.Sprintf("%d %s", e.Job, e.Halt))
	}
}

func (l *labs) again(ctx context.Context) error {
	l.share = share{queue: newQueue(3), job: NoJob}
	return again(ctx, l.tell, &l.share, func(context.Context) error {
		if len(l.runs) == 0 {
			return errors.New("a lab too many")
		}
		run := l.runs[0]
		l.runs = l.runs[1:]
		return run(l)
	})
}

// ends is a lab in which n jobs end, the first with status 1, before it ends itself: in the job that comes next.
func ends(n int, err error) func(*labs) error {
	return func(l *labs) error {
		code := 1
		for job := l.begin(); job != NoJob; job = l.begin() {
			l.jobs = append(l.jobs, job)
			if n--; n < 0 {
				break
			}
			l.end()
			l.tell(Event{Job: job, Exit: &code})
			code = 0
		}
		return err
	}
}

// overruns is a lab in which n jobs end, and the last of them by its overrun: it has begun none behind it.
func overruns(n int) func(*labs) error {
	return func(l *labs) error {
		for range n {
			job, code := l.begin(), -1
			l.jobs = append(l.jobs, job)
			l.end()
			l.tell(Event{Job: job, Exit: &code})
		}
		return &haltError{reason: "b overran", overran: true}
	}
}

// never is a lab that is lost before its boot.
func never(*labs) error { return stood("") }

func stood(console string) *haltError { return &haltError{reason: "it stood still", console: console} }

// TestAgain: what was under way in a lab that stood still runs in a fresh one, a job in three at the most, and never what had ended, however it did.
func TestAgain(t *testing.T) {
	broken := errors.New("the disk is full")
	for name, c := range map[string]struct {
		runs []func(*labs) error
		jobs string
		told string
		want []string // Of the error; none when there is none.
	}{
		"nothing stands still": {
			runs: []func(*labs) error{ends(3, nil)}, jobs: "[0 1 2]", told: "[0 exit 1 1 exit 0 2 exit 0]",
		},
		"before its boot": {
			runs: []func(*labs) error{never, ends(3, nil)}, jobs: "[0 1 2]",
			told: "[-1 it stood still; the others run in a fresh lab 0 exit 1 1 exit 0 2 exit 0]",
		},
		"three times before its boot": {
			runs: []func(*labs) error{never, never, never}, jobs: "[]",
			told: "[-1 it stood still; the others run in a fresh lab -1 it stood still; the others run in a fresh lab]", want: []string{"in 3 labs"},
		},
		"in the second job": {
			runs: []func(*labs) error{ends(1, stood("")), ends(2, nil)}, jobs: "[0 1 1 2]",
			told: "[0 exit 1 1 it stood still; it runs once more 1 exit 1 2 exit 0]",
		},
		"twice in one job": {
			runs: []func(*labs) error{ends(1, stood("")), ends(0, stood("")), ends(2, nil)}, jobs: "[0 1 1 1 2]",
			told: "[0 exit 1 1 it stood still; it runs once more 1 it stood still; it runs once more 1 exit 1 2 exit 0]",
		},
		"three times in one job": {
			runs: []func(*labs) error{ends(1, stood("one")), ends(0, stood("two")), ends(0, stood("three"))}, jobs: "[0 1 1 1]",
			told: "[0 exit 1 1 it stood still; it runs once more 1 it stood still; it runs once more]",
			want: []string{"in 3 labs, one behind the other; in the last: it stood still; the last lines of its console:\nthree"},
		},
		"twice in each job": {
			runs: []func(*labs) error{ends(0, stood("")), ends(0, stood("")), ends(1, stood("")), ends(0, stood("")), ends(1, stood("")), ends(0, stood("")), ends(1, nil)},
			jobs: "[0 0 0 1 1 1 2 2 2]",
			told: "[0 it stood still; it runs once more 0 it stood still; it runs once more 0 exit 1 1 it stood still; it runs once more 1 it stood still; it runs once more" +
				" 1 exit 1 2 it stood still; it runs once more 2 it stood still; it runs once more 2 exit 1]",
		},
		"when all is done": {
			runs: []func(*labs) error{ends(3, stood(""))}, jobs: "[0 1 2]",
			told: "[0 exit 1 1 exit 0 2 exit 0 -1 it stood still; nothing is left to run]",
		},
		"a job overruns": {
			runs: []func(*labs) error{overruns(2), ends(1, nil)}, jobs: "[0 1 2]",
			told: "[0 exit -1 1 exit -1 -1 b overran; the others run in a fresh lab 2 exit 1]", want: []string{"b overran"},
		},
		"each job overruns": {
			runs: []func(*labs) error{overruns(1), overruns(1), overruns(1)}, jobs: "[0 1 2]",
			told: "[0 exit -1 -1 b overran; the others run in a fresh lab 1 exit -1 -1 b overran; the others run in a fresh lab 2 exit -1 -1 b overran; nothing is left to run]",
			want: []string{"b overran"},
		},
		"a job overruns, and then a lab is lost three times": {
			runs: []func(*labs) error{overruns(2), ends(0, stood("")), ends(0, stood("")), ends(0, stood("end"))}, jobs: "[0 1 2 2 2]",
			told: "[0 exit -1 1 exit -1 -1 b overran; the others run in a fresh lab 2 it stood still; it runs once more 2 it stood still; it runs once more]",
			want: []string{"b overran", "in 3 labs", "end"},
		},
		"another error": {
			runs: []func(*labs) error{ends(1, broken)}, jobs: "[0 1]", told: "[0 exit 1]", want: []string{broken.Error()},
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := &labs{runs: c.runs}
			err := l.again(t.Context())
			if jobs, told := fmt.Sprint(l.jobs), fmt.Sprint(l.told); jobs != c.jobs || told != c.told {
				t.Errorf("labs for %s told %s, want %s and %s", jobs, told, c.jobs, c.told)
			}
			if (err == nil) != (len(c.want) == 0) || slices.ContainsFunc(c.want, func(want string) bool { return !strings.Contains(err.Error(), want) }) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

// TestNotAgain: nothing begins once more for a caller who has gone.
func TestNotAgain(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	l := &labs{runs: []func(*labs) error{func(*labs) error { cancel(); return stood("") }, ends(3, nil)}}
	if err := l.again(ctx); err == nil || len(l.runs) != 1 {
		t.Errorf("%d labs are left, %v", len(l.runs), err)
	}
}
