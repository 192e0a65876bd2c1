package runtimetest

import (
	"context"
	"slices"

	microvm "github.com/tangle-network/microvm-runtime"
)

// processes are cases with a second runtime on the same state, as another process would open it.
var processes = group{"processes", []testCase{
	{"one creates, another starts", func(c *checker) {
		c.create("one")
		other := c.h.Reopen(c.T, c.rt)
		vm, err := other.VM(c.ctx, "one")
		c.ok(err)
		c.ok(vm.Start(c.ctx, nil))
		mine, err := c.rt.VM(c.ctx, "one")
		c.ok(err)
		c.state(mine, microvm.StateRunning)
		c.stop(mine)
		info, err := vm.Info(c.ctx)
		c.ok(err)
		if info.State != microvm.StateStopped || info.Exit == nil || info.Exit.Reason != microvm.ReasonForced {
			c.Errorf("info %+v", info)
		}
	}},
	{"machines outlive the runtime", func(c *checker) {
		vm := c.in("one", microvm.StateRunning)
		c.awaitMarker(vm)
		other := c.h.Reopen(c.T, c.rt)
		c.ok(c.rt.Close())
		found, err := other.VM(c.ctx, "one")
		c.ok(err)
		info, err := found.Info(c.ctx)
		c.ok(err)
		if info.State != microvm.StateRunning {
			c.Fatalf("state %q", info.State)
		}
		c.ok(found.Pause(c.ctx))
		c.ok(found.Resume(c.ctx))
		exit, err := found.Stop(c.ctx, &microvm.StopOptions{Force: true})
		c.ok(err)
		if exit.Reason != microvm.ReasonForced {
			c.Errorf("exit %+v", exit)
		}
	}},
	{"one waits, another stops", func(c *checker) {
		vm := c.in("one", microvm.StateRunning)
		other := c.h.Reopen(c.T, c.rt)
		theirs, err := other.VM(c.ctx, "one")
		c.ok(err)
		done := make(chan microvm.Exit, 1)
		go func() {
			exit, err := theirs.Wait(c.ctx)
			if err != nil {
				c.Error(err)
			}
			done <- exit
		}()
		c.stop(vm)
		if exit := <-done; exit.Reason != microvm.ReasonForced {
			c.Errorf("exit %+v", exit)
		}
	}},
	{"one watches, another acts", func(c *checker) {
		next, stop := c.watch(c.rt, nil)
		defer stop()
		other := c.h.Reopen(c.T, c.rt)
		vm, err := other.Create(c.ctx, "one", c.h.Spec)
		c.ok(err)
		c.ok(vm.Start(c.ctx, nil))
		_, err = vm.Stop(c.ctx, &microvm.StopOptions{Force: true})
		c.ok(err)
		c.ok(vm.Destroy(c.ctx))
		for _, what := range []microvm.EventType{microvm.EventCreated, microvm.EventStarted, microvm.EventStopped, microvm.EventDestroyed} {
			c.expect(next, what, vm)
		}
	}},
	{"the console is handed on", func(c *checker) {
		vm := c.in("one", microvm.StateRunning)
		c.awaitMarker(vm)
		other := c.h.Reopen(c.T, c.rt)
		c.ok(c.rt.Close())
		theirs, err := other.VM(c.ctx, "one")
		c.ok(err)
		r, err := theirs.Console(c.ctx, &microvm.ConsoleOptions{Follow: true})
		c.ok(err)
		defer r.Close()
		c.readUntil(r, c.h.Marker)
	}},
	{"names are shared", func(c *checker) {
		c.create("one")
		other := c.h.Reopen(c.T, c.rt)
		_, err := other.Create(c.ctx, "one", c.h.Spec)
		c.is(err, microvm.ErrExists)
		theirs, err := other.VM(c.ctx, "one")
		c.ok(err)
		c.ok(theirs.Rename(c.ctx, "two"))
		if got := c.list(nil); !slices.Equal(got, []string{"two"}) {
			c.Errorf("list %q", got)
		}
	}},
	{"one destroys what another started", func(c *checker) {
		vm := c.in("one", microvm.StateRunning)
		other := c.h.Reopen(c.T, c.rt)
		theirs, err := other.VM(c.ctx, "one")
		c.ok(err)
		c.ok(theirs.Destroy(c.ctx))
		_, err = vm.Info(c.ctx)
		c.is(err, microvm.ErrNotFound)
		c.create("one")
	}},
}}

// contexts are cases of contexts that have ended, and of runtimes that are closed.
var contexts = group{"contexts", contextCases()}

func contextCases() []testCase {
	cases := []testCase{
		{"create", func(c *checker) {
			c.leavesNothing("create", func() {
				_, err := c.rt.Create(c.ended(), "one", c.h.Spec)
				c.is(err, context.Canceled)
			})
			c.create("one")
		}},
		{"list", func(c *checker) {
			c.create("one")
			_, err := c.rt.List(c.ended(), nil)
			c.is(err, context.Canceled)
		}},
		{"close twice", func(c *checker) {
			c.ok(c.rt.Close())
			c.ok(c.rt.Close())
		}},
		{"closed", func(c *checker) {
			vm := c.in("one", microvm.StateCreated)
			c.ok(c.rt.Close())
			_, err := c.rt.Create(c.ctx, "two", c.h.Spec)
			c.is(err, microvm.ErrClosed)
			_, err = c.rt.List(c.ctx, nil)
			c.is(err, microvm.ErrClosed)
			_, err = c.rt.VM(c.ctx, "one")
			c.is(err, microvm.ErrClosed)
			_, err = c.rt.Watch(c.ctx, nil)
			c.is(err, microvm.ErrClosed)
			for _, v := range verbs {
				c.is(v.call(c, vm), microvm.ErrClosed)
			}
		}},
		{"closing ends waiters", func(c *checker) {
			vm := c.in("one", microvm.StateRunning)
			done := make(chan error, 1)
			go func() {
				_, err := vm.Wait(c.ctx)
				done <- err
			}()
			c.ok(c.rt.Close())
			c.is(<-done, microvm.ErrClosed)
		}},
	}
	for _, v := range verbs {
		if v.name == "dial" {
			continue // its errors are the guest's
		}
		cases = append(cases, testCase{v.name, func(c *checker) {
			vm := c.in("one", microvm.StateRunning)
			before := c.info(vm)
			ended := *c
			ended.ctx = c.ended()
			c.is(v.call(&ended, vm), context.Canceled)
			if after := c.info(vm); after.State != before.State || after.Name != before.Name {
				c.Errorf("info %+v, then %+v", before, after)
			}
		}})
	}
	return cases
}

// ended returns a context that has ended.
func (c *checker) ended() context.Context {
	ctx, cancel := context.WithCancel(c.ctx)
	cancel()
	return ctx
}
