//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
)

// again runs jobs in a lab, and once more, in a fresh lab, those that one had not ended which was given up. It decides by the lab alone: a job that ended has ended, however
// it did, and one that overran in a lab that lives has failed.
func again(ctx context.Context, o Options, run func(context.Context, Options) error) error {
	tell := o.Event
	if tell == nil {
		tell = func(Event) {}
	}
	ended, first := 0, o
	first.Event = func(e Event) {
		if e.Exit != nil {
			ended++
		}
		tell(e)
	}
	err := run(ctx, first)
	halt, ok := errors.AsType[*haltError](err)
	if !ok || ctx.Err() != nil {
		return err
	}
	rest := o
	rest.Jobs = o.Jobs[ended:]
	rest.Event = func(e Event) {
		e.Job += ended
		tell(e)
	}
	var failed error
	next := "it runs once more"
	if halt.overran {
		failed, next = err, "the others run in a fresh lab"
	}
	if len(rest.Jobs) == 0 {
		next = "nothing is left to run"
	}
	tell(Event{Job: ended, Halt: halt.reason + "; " + next})
	if len(rest.Jobs) == 0 {
		return failed
	}
	if second := run(ctx, rest); second != nil {
		return fmt.Errorf("in the second lab: %w\nin the first: %w", second, err)
	}
	return failed
}
