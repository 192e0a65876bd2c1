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

// labs are runs of fake labs, one after the other.
type labs struct {
	runs []func(Options) error
	jobs [][]string // What each was to run.
	told []string   // What came of it.
}

func (l *labs) run(_ context.Context, o Options) error {
	var names []string
	for _, job := range o.Jobs {
		names = append(names, job.Name)
	}
	l.jobs = append(l.jobs, names)
	if len(l.jobs) > len(l.runs) {
		return errors.New("a lab too many")
	}
	return l.runs[len(l.jobs)-1](o)
}

func (l *labs) again(ctx context.Context) error {
	return again(ctx, Options{Jobs: []Job{{Name: "a"}, {Name: "b"}, {Name: "c"}}, Event: func(e Event) {
		switch {
		case e.Exit != nil:
			l.told = append(l.told, fmt.Sprintf("%d exit %d", e.Job, *e.Exit))
		case e.Halt != "":
			l.told = append(l.told, fmt.Sprintf("%d %s", e.Job, e.Halt))
		}
	}}, l.run)
}

// ends is a lab in which n jobs end, the first with status 1, before it ends itself.
func ends(n int, err error) func(Options) error {
	return func(o Options) error {
		for i := range n {
			code := 0
			if i == 0 {
				code = 1
			}
			o.Event(Event{Job: i, Exit: &code})
		}
		return err
	}
}

func stood(console string) *haltError { return &haltError{reason: "it stood still", console: console} }

// TestAgain: what a lab had not ended that stood still runs in a fresh one, a job in three at the most, and never what had ended, however it did.
func TestAgain(t *testing.T) {
	overran := &haltError{reason: "b overran", overran: true}
	broken := errors.New("the disk is full")
	for name, c := range map[string]struct {
		runs []func(Options) error
		jobs string
		told string
		want []string // Of the error; none when there is none.
	}{
		"nothing stands still": {
			runs: []func(Options) error{ends(3, nil)}, jobs: "[[a b c]]", told: "[0 exit 1 1 exit 0 2 exit 0]",
		},
		"before its boot": {
			runs: []func(Options) error{ends(0, stood("")), ends(3, nil)}, jobs: "[[a b c] [a b c]]",
			told: "[0 it stood still; it runs once more 0 exit 1 1 exit 0 2 exit 0]",
		},
		"in the second job": {
			runs: []func(Options) error{ends(1, stood("")), ends(2, nil)}, jobs: "[[a b c] [b c]]",
			told: "[0 exit 1 1 it stood still; it runs once more 1 exit 1 2 exit 0]",
		},
		"twice in one job": {
			runs: []func(Options) error{ends(1, stood("")), ends(0, stood("")), ends(2, nil)}, jobs: "[[a b c] [b c] [b c]]",
			told: "[0 exit 1 1 it stood still; it runs once more 1 it stood still; it runs once more 1 exit 1 2 exit 0]",
		},
		"three times in one job": {
			runs: []func(Options) error{ends(1, stood("one")), ends(0, stood("two")), ends(0, stood("three"))}, jobs: "[[a b c] [b c] [b c]]",
			told: "[0 exit 1 1 it stood still; it runs once more 1 it stood still; it runs once more]",
			want: []string{"in 3 labs, one behind the other; in the last: it stood still; the last lines of its console:\nthree"},
		},
		"twice in each job": {
			runs: []func(Options) error{ends(0, stood("")), ends(0, stood("")), ends(1, stood("")), ends(0, stood("")), ends(1, stood("")), ends(0, stood("")), ends(1, nil)},
			jobs: "[[a b c] [a b c] [a b c] [b c] [b c] [c] [c]]",
			told: "[0 it stood still; it runs once more 0 it stood still; it runs once more 0 exit 1 1 it stood still; it runs once more 1 it stood still; it runs once more" +
				" 1 exit 1 2 it stood still; it runs once more 2 it stood still; it runs once more 2 exit 1]",
		},
		"when all is done": {
			runs: []func(Options) error{ends(3, stood(""))}, jobs: "[[a b c]]",
			told: "[0 exit 1 1 exit 0 2 exit 0 3 it stood still; nothing is left to run]",
		},
		"a job overruns": {
			runs: []func(Options) error{ends(2, overran), ends(1, nil)}, jobs: "[[a b c] [c]]",
			told: "[0 exit 1 1 exit 0 2 b overran; the others run in a fresh lab 2 exit 1]", want: []string{"b overran"},
		},
		"each job overruns": {
			runs: []func(Options) error{ends(1, overran), ends(1, overran), ends(1, overran)}, jobs: "[[a b c] [b c] [c]]",
			told: "[0 exit 1 1 b overran; the others run in a fresh lab 1 exit 1 2 b overran; the others run in a fresh lab 2 exit 1 3 b overran; nothing is left to run]",
			want: []string{"b overran"},
		},
		"a job overruns, and then a lab is lost three times": {
			runs: []func(Options) error{ends(2, overran), ends(0, stood("")), ends(0, stood("")), ends(0, stood("end"))}, jobs: "[[a b c] [c] [c] [c]]",
			told: "[0 exit 1 1 exit 0 2 b overran; the others run in a fresh lab 2 it stood still; it runs once more 2 it stood still; it runs once more]",
			want: []string{"b overran", "in 3 labs", "end"},
		},
		"another error": {
			runs: []func(Options) error{ends(1, broken)}, jobs: "[[a b c]]", told: "[0 exit 1]", want: []string{broken.Error()},
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
	l := &labs{runs: []func(Options) error{func(Options) error { cancel(); return stood("") }, ends(3, nil)}}
	if err := l.again(ctx); err == nil || len(l.jobs) != 1 {
		t.Errorf("%d labs, %v", len(l.jobs), err)
	}
}
