//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
)

// attempts is in how many labs a job may be under way when they are given up.
const attempts = 3

// again runs a share of the jobs in a lab for as long as it lives. When it was given up, a fresh one goes on, first with the job that was under way. It decides by the lab
// alone: a job that ended has ended, however it did, and one that overran in a lab that lives has failed.
func again(ctx context.Context, tell func(Event), s *share, run func(context.Context) error) error {
	var failed error
	for tries := 0; ; {
		before := s.ended
		err := run(ctx)
		halt, ok := errors.AsType[*haltError](err)
		if !ok || ctx.Err() != nil {
			return errors.Join(failed, err)
		}
		if s.ended > before {
			tries = 0
		}
		if halt.overran {
			failed = errors.Join(failed, err)
		} else if !s.done() {
			if tries++; tries == attempts {
				return errors.Join(failed, fmt.Errorf("in %d labs, one behind the other; in the last: %w", attempts, err))
			}
		}
		tell(Event{Job: s.job, Halt: halt.reason + "; " + s.goesOn()})
		if s.done() {
			return failed
		}
	}
}

// goesOn says what comes after a lab that was given up.
func (s *share) goesOn() string {
	switch {
	case s.job != NoJob:
		return "it runs once more"
	case !s.done():
		return "the others run in a fresh lab"
	}
	return "nothing is left to run"
}
