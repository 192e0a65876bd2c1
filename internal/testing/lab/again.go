//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
)

// attempts is in how many labs a job may be under way when they are given up.
const attempts = 3

// again runs jobs in a lab for as long as it lives. When it was given up, a fresh one runs those that had not ended, the one that was under way once more. It decides by the
// lab alone: a job that ended has ended, however it did, and one that overran in a lab that lives has failed.
func again(ctx context.Context, o Options, run func(context.Context, Options) error) error {
	tell := o.Event
	if tell == nil {
		tell = func(Event) {}
	}
	var failed error
	for done, tries := 0, 0; ; {
		ended, err := part(ctx, o, done, tell, run)
		halt, ok := errors.AsType[*haltError](err)
		if !ok || ctx.Err() != nil {
			return errors.Join(failed, err)
		}
		if done += ended; ended > 0 {
			tries = 0
		}
		next := "it runs once more"
		switch {
		case halt.overran:
			failed, next = errors.Join(failed, err), "the others run in a fresh lab"
		case done < len(o.Jobs):
			if tries++; tries == attempts {
				return errors.Join(failed, fmt.Errorf("in %d labs, one behind the other; in the last: %w", attempts, err))
			}
		}
		if done == len(o.Jobs) {
			next = "nothing is left to run"
		}
		tell(Event{Job: done, Halt: halt.reason + "; " + next})
		if done == len(o.Jobs) {
			return failed
		}
	}
}

// part runs the jobs from the first on in one lab, and returns how many ended.
func part(ctx context.Context, o Options, first int, tell func(Event), run func(context.Context, Options) error) (ended int, err error) {
	o.Jobs = o.Jobs[first:]
	o.Event = func(e Event) {
		e.Job += first
		if e.Exit != nil {
			ended++
		}
		tell(e)
	}
	err = run(ctx, o)
	return ended, err
}
