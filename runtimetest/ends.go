package runtimetest

import (
	"context"
	"sync"

	microvm "github.com/tangle-network/microvm-runtime"
)

var ends = group{"ends", []testCase{
	{"forced", func(c *checker) {
		vm := c.in("one", microvm.StateRunning)
		exit := c.stop(vm)
		if exit.Reason != microvm.ReasonForced || exit.Time.IsZero() || len(exit.Evidence) == 0 {
			c.Errorf("exit %+v", exit)
		}
		if got := c.info(vm).Exit; got == nil || got.Reason != exit.Reason || !got.Time.Equal(exit.Time) {
			c.Errorf("info has exit %+v, want %+v", got, exit)
		}
	}},
	{"stop says the same again", func(c *checker) {
		vm := c.in("one", microvm.StateRunning)
		first := c.stop(vm)
		if again := c.stop(vm); again.Reason != first.Reason || !again.Time.Equal(first.Time) {
			c.Errorf("exit %+v, then %+v", first, again)
		}
	}},
	{"wait after the end", func(c *checker) {
		vm := c.in("one", microvm.StateStopped)
		exit, err := vm.Wait(c.ctx)
		c.ok(err)
		if exit.Reason != microvm.ReasonForced {
			c.Errorf("exit %+v", exit)
		}
	}},
	{"wait of a created machine", func(c *checker) {
		_, err := c.create("one").Wait(c.ctx)
		c.is(err, microvm.ErrState)
	}},
	{"all waiters are told", func(c *checker) {
		vm := c.in("one", microvm.StateRunning)
		var waiting sync.WaitGroup
		for range 4 {
			waiting.Go(func() {
				exit, err := vm.Wait(c.ctx)
				if err != nil || exit.Reason != microvm.ReasonForced {
					c.Errorf("exit %+v, error %v", exit, err)
				}
			})
		}
		c.stop(vm)
		waiting.Wait()
	}},
	{"wait can be left", func(c *checker) {
		vm := c.in("one", microvm.StateRunning)
		ctx, cancel := context.WithCancel(c.ctx)
		done := make(chan error, 1)
		go func() {
			_, err := vm.Wait(ctx)
			done <- err
		}()
		cancel()
		c.is(<-done, context.Canceled)
		c.state(vm, microvm.StateRunning)
	}},
	{"exit is gone while it runs again", func(c *checker) {
		vm := c.in("one", microvm.StateStopped)
		c.ok(vm.Start(c.ctx, nil))
		if exit := c.info(vm).Exit; exit != nil {
			c.Errorf("exit %+v of a machine that runs", exit)
		}
		c.stop(vm)
		c.ok(vm.Start(c.ctx, nil))
		c.state(vm, microvm.StateRunning)
	}},
	{"by itself", func(c *checker) {
		vm, err := c.rt.Create(c.ctx, "one", *c.h.Ends)
		c.ok(err)
		c.startEnding(vm)
		exit, err := vm.Wait(c.ctx)
		c.ok(err)
		if exit.Reason != microvm.ReasonGuest || exit.Code != 0 {
			c.Errorf("exit %+v", exit)
		}
		c.state(vm, microvm.StateStopped)
	}},
	{"starts again after its own end", func(c *checker) {
		vm, err := c.rt.Create(c.ctx, "one", *c.h.Ends)
		c.ok(err)
		for range 3 {
			c.startEnding(vm)
			_, err := vm.Wait(c.ctx)
			c.ok(err)
		}
		c.ok(vm.Destroy(c.ctx))
	}},
}}

// startEnding starts a machine that may have ended before Start sees it run.
func (c *checker) startEnding(vm *microvm.VM) {
	c.Helper()
	if err := vm.Start(c.ctx, nil); err != nil {
		c.Fatal(err)
	}
}

var renames = group{"renames", []testCase{
	{"handles survive", func(c *checker) {
		vm := c.create("one")
		c.ok(vm.Rename(c.ctx, "two"))
		if info := c.info(vm); info.Name != "two" || info.UID != vm.UID() {
			c.Errorf("info %+v", info)
		}
		_, err := c.rt.VM(c.ctx, "one")
		c.is(err, microvm.ErrNotFound)
		found, err := c.rt.VM(c.ctx, "two")
		c.ok(err)
		if found.UID() != vm.UID() {
			c.Error("another machine has the name")
		}
	}},
	{"to a taken name", func(c *checker) {
		one, two := c.create("one"), c.create("two")
		c.leavesNothing("rename", func() { c.is(one.Rename(c.ctx, "two"), microvm.ErrExists) })
		if c.info(one).Name != "one" || c.info(two).Name != "two" {
			c.Error("a name has changed")
		}
	}},
	{"to its own name", func(c *checker) {
		vm := c.create("one")
		c.ok(vm.Rename(c.ctx, "one"))
	}},
	{"to a bad name", func(c *checker) {
		vm := c.create("one")
		for _, name := range []string{"", "a/b", "-x", ".."} {
			c.leavesNothing("rename", func() { c.is(vm.Rename(c.ctx, name), microvm.ErrInvalid) })
		}
		if c.info(vm).Name != "one" {
			c.Error("the name has changed")
		}
	}},
	{"while it runs", func(c *checker) {
		vm := c.in("one", microvm.StateRunning)
		c.ok(vm.Rename(c.ctx, "two"))
		c.state(vm, microvm.StateRunning)
		c.stop(vm)
		c.ok(vm.Start(c.ctx, nil))
	}},
	{"the old name is free", func(c *checker) {
		vm := c.create("one")
		c.ok(vm.Rename(c.ctx, "two"))
		if c.create("one").UID() == vm.UID() {
			c.Error("one machine for two names")
		}
	}},
	{"two change places", func(c *checker) {
		a, b := c.create("a"), c.create("b")
		c.ok(a.Rename(c.ctx, "c"))
		c.ok(b.Rename(c.ctx, "a"))
		c.ok(a.Rename(c.ctx, "b"))
		if c.info(a).Name != "b" || c.info(b).Name != "a" {
			c.Error("names are wrong")
		}
	}},
	{"one of many at once wins a name", func(c *checker) {
		var renaming sync.WaitGroup
		var mu sync.Mutex
		wins := 0
		for _, vm := range []*microvm.VM{c.create("a"), c.create("b"), c.create("c")} {
			renaming.Go(func() {
				if vm.Rename(c.ctx, "prize") == nil {
					mu.Lock()
					defer mu.Unlock()
					wins++
				}
			})
		}
		renaming.Wait()
		if wins != 1 || len(c.list(nil)) != 3 {
			c.Errorf("%d win; list %q", wins, c.list(nil))
		}
	}},
}}
