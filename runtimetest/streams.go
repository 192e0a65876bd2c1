package runtimetest

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"

	microvm "github.com/tangle-network/microvm-runtime"
)

// watch follows events from its call on; stop ends it.
func (c *checker) watch(rt *microvm.Runtime, filter *microvm.Filter) (next func() microvm.Event, stop func()) {
	c.Helper()
	ctx, cancel := context.WithCancel(c.ctx)
	seq, err := rt.Watch(ctx, filter)
	c.ok(err)
	got, done := make(chan microvm.Event), make(chan struct{})
	go func() {
		defer close(done)
		for event, err := range seq {
			if err != nil {
				return
			}
			select {
			case got <- event:
			case <-ctx.Done():
				return
			}
		}
	}()
	next = func() microvm.Event {
		c.Helper()
		select {
		case event := <-got:
			return event
		case <-done:
			c.Fatal("the events ended")
		case <-c.ctx.Done():
			c.Fatal("no event came")
		}
		return microvm.Event{}
	}
	return next, func() { cancel(); <-done }
}

// expect fails the case unless the next event is of the type and the machine.
func (c *checker) expect(next func() microvm.Event, what microvm.EventType, vm *microvm.VM) microvm.Event {
	c.Helper()
	event := next()
	if event.Type != what || event.UID != vm.UID() || event.Time.IsZero() {
		c.Fatalf("event %+v, want %s of %s", event, what, vm.UID())
	}
	return event
}

var events = group{"events", []testCase{
	{"a whole life in order", func(c *checker) {
		next, stop := c.watch(c.rt, nil)
		defer stop()
		vm := c.in("one", microvm.StatePaused)
		c.ok(vm.Resume(c.ctx))
		c.ok(vm.Rename(c.ctx, "two"))
		exit := c.stop(vm)
		c.ok(vm.Destroy(c.ctx))
		c.expect(next, microvm.EventCreated, vm)
		c.expect(next, microvm.EventStarted, vm)
		c.expect(next, microvm.EventPaused, vm)
		c.expect(next, microvm.EventResumed, vm)
		if renamed := c.expect(next, microvm.EventRenamed, vm); renamed.Name != "two" {
			c.Errorf("renamed to %q", renamed.Name)
		}
		if stopped := c.expect(next, microvm.EventStopped, vm); stopped.Exit == nil || stopped.Exit.Reason != exit.Reason {
			c.Errorf("stopped with %+v", stopped.Exit)
		}
		c.expect(next, microvm.EventDestroyed, vm)
	}},
	{"nothing from before", func(c *checker) {
		c.create("before")
		next, stop := c.watch(c.rt, nil)
		defer stop()
		c.expect(next, microvm.EventCreated, c.create("after"))
	}},
	{"an idle verb is no event", func(c *checker) {
		vm := c.in("one", microvm.StateRunning)
		next, stop := c.watch(c.rt, nil)
		defer stop()
		c.ok(vm.Start(c.ctx, nil))
		c.ok(vm.Resume(c.ctx))
		c.ok(vm.Rename(c.ctx, "one"))
		c.ok(vm.Pause(c.ctx))
		c.expect(next, microvm.EventPaused, vm)
	}},
	{"a failed create is no event", func(c *checker) {
		c.create("one")
		next, stop := c.watch(c.rt, nil)
		defer stop()
		_, err := c.rt.Create(c.ctx, "one", c.h.Spec)
		c.is(err, microvm.ErrExists)
		c.expect(next, microvm.EventCreated, c.create("two"))
	}},
	{"filter by labels", func(c *checker) {
		next, stop := c.watch(c.rt, &microvm.Filter{Labels: map[string]string{"k": "v"}})
		defer stop()
		c.create("without")
		spec := c.h.Spec
		spec.Labels = map[string]string{"k": "v"}
		vm, err := c.rt.Create(c.ctx, "with", spec)
		c.ok(err)
		c.expect(next, microvm.EventCreated, vm)
	}},
	{"two watchers", func(c *checker) {
		one, stopOne := c.watch(c.rt, nil)
		defer stopOne()
		two, stopTwo := c.watch(c.rt, nil)
		defer stopTwo()
		vm := c.create("one")
		c.expect(one, microvm.EventCreated, vm)
		c.expect(two, microvm.EventCreated, vm)
	}},
	{"leaving ends it", func(c *checker) {
		seq, err := c.rt.Watch(c.ctx, nil)
		c.ok(err)
		c.create("one")
		for range seq {
			break
		}
	}},
	{"an end by itself", func(c *checker) {
		vm, err := c.rt.Create(c.ctx, "one", *c.h.Ends)
		c.ok(err)
		next, stop := c.watch(c.rt, nil)
		defer stop()
		c.startEnding(vm)
		c.expect(next, microvm.EventStarted, vm)
		if stopped := c.expect(next, microvm.EventStopped, vm); stopped.Exit == nil || stopped.Exit.Reason != microvm.ReasonGuest {
			c.Errorf("stopped with %+v", stopped.Exit)
		}
	}},
}}

// readUntil reads until the text has come.
func (c *checker) readUntil(r io.Reader, text string) {
	c.Helper()
	var seen []byte
	part := make([]byte, 256)
	for !strings.Contains(string(seen), text) {
		n, err := r.Read(part)
		seen = append(seen, part[:n]...)
		if err != nil && !strings.Contains(string(seen), text) {
			c.Fatalf("read %q, then %v; want %q", seen, err, text)
		}
	}
}

var consoles = group{"consoles", []testCase{
	{"follow reads what comes", func(c *checker) {
		vm := c.in("one", microvm.StateRunning)
		r, err := vm.Console(c.ctx, &microvm.ConsoleOptions{Follow: true})
		c.ok(err)
		defer r.Close()
		c.readUntil(r, c.h.Marker)
	}},
	{"follow ends with the run", func(c *checker) {
		vm, err := c.rt.Create(c.ctx, "one", *c.h.Ends)
		c.ok(err)
		c.startEnding(vm)
		r, err := vm.Console(c.ctx, &microvm.ConsoleOptions{Follow: true})
		c.ok(err)
		defer r.Close()
		text, err := io.ReadAll(r)
		c.ok(err)
		if !strings.Contains(string(text), c.h.Marker) {
			c.Errorf("console %q", text)
		}
	}},
	{"follow ends with a stop", func(c *checker) {
		vm := c.in("one", microvm.StateRunning)
		r, err := vm.Console(c.ctx, &microvm.ConsoleOptions{Follow: true})
		c.ok(err)
		defer r.Close()
		c.readUntil(r, c.h.Marker)
		c.stop(vm)
		_, err = io.ReadAll(r)
		c.ok(err)
	}},
	{"kept after the end", func(c *checker) {
		vm := c.in("one", microvm.StateRunning)
		c.awaitMarker(vm)
		c.stop(vm)
		r, err := vm.Console(c.ctx, nil)
		c.ok(err)
		defer r.Close()
		text, err := io.ReadAll(r)
		c.ok(err)
		if !strings.Contains(string(text), c.h.Marker) {
			c.Errorf("console %q", text)
		}
	}},
	{"tail", func(c *checker) {
		vm := c.in("one", microvm.StateRunning)
		c.awaitMarker(vm)
		c.stop(vm)
		r, err := vm.Console(c.ctx, &microvm.ConsoleOptions{Tail: 3})
		c.ok(err)
		defer r.Close()
		text, err := io.ReadAll(r)
		c.ok(err)
		if len(text) != 3 {
			c.Errorf("tail of 3 is %q", text)
		}
	}},
	{"a negative tail", func(c *checker) {
		_, err := c.in("one", microvm.StateStopped).Console(c.ctx, &microvm.ConsoleOptions{Tail: -1})
		c.is(err, microvm.ErrInvalid)
	}},
	{"each run begins anew", func(c *checker) {
		vm := c.in("one", microvm.StateRunning)
		for range 3 {
			c.awaitMarker(vm)
			c.stop(vm)
			c.ok(vm.Start(c.ctx, nil))
		}
		c.awaitMarker(vm)
		r, err := vm.Console(c.ctx, nil)
		c.ok(err)
		defer r.Close()
		text, err := io.ReadAll(r)
		c.ok(err)
		if strings.Count(string(text), c.h.Marker) != 1 {
			c.Errorf("console %q", text)
		}
	}},
	{"two readers read the same", func(c *checker) {
		vm := c.in("one", microvm.StateRunning)
		for range 2 {
			r, err := vm.Console(c.ctx, &microvm.ConsoleOptions{Follow: true})
			c.ok(err)
			defer r.Close()
			c.readUntil(r, c.h.Marker)
		}
	}},
	{"following can be left", func(c *checker) {
		vm := c.in("one", microvm.StateRunning)
		c.awaitMarker(vm)
		ctx, cancel := context.WithCancel(c.ctx)
		r, err := vm.Console(ctx, &microvm.ConsoleOptions{Follow: true})
		c.ok(err)
		defer r.Close()
		done := make(chan error, 1)
		go func() {
			_, err := io.ReadAll(r)
			done <- err
		}()
		cancel()
		c.is(<-done, context.Canceled)
	}},
}}

func (c *checker) awaitMarker(vm *microvm.VM) {
	c.Helper()
	r, err := vm.Console(c.ctx, &microvm.ConsoleOptions{Follow: true})
	c.ok(err)
	defer r.Close()
	c.readUntil(r, c.h.Marker)
}

var connections = group{"connections", []testCase{
	{"listen twice on one port", func(c *checker) {
		vm := c.in("one", microvm.StateRunning)
		l, err := vm.Listen(c.ctx, 99)
		c.ok(err)
		defer l.Close()
		_, err = vm.Listen(c.ctx, 99)
		c.is(err, microvm.ErrExists)
		other, err := vm.Listen(c.ctx, 100)
		c.ok(err)
		c.ok(other.Close())
	}},
	{"closing ends accept", func(c *checker) {
		l, err := c.in("one", microvm.StateRunning).Listen(c.ctx, 99)
		c.ok(err)
		done := make(chan error, 1)
		go func() {
			_, err := l.Accept()
			done <- err
		}()
		c.ok(l.Close())
		if err := <-done; !errors.Is(err, net.ErrClosed) {
			c.Errorf("accept: %v", err)
		}
	}},
	{"listen again in the next run", func(c *checker) {
		vm := c.in("one", microvm.StateRunning)
		l, err := vm.Listen(c.ctx, 99)
		c.ok(err)
		c.ok(l.Close())
		c.stop(vm)
		c.ok(vm.Start(c.ctx, nil))
		l, err = vm.Listen(c.ctx, 99)
		c.ok(err)
		c.ok(l.Close())
	}},
}}
