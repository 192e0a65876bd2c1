package runtimetest

import (
	"errors"
	"fmt"
	"sync"
	"syscall"

	microvm "github.com/tangle-network/microvm-runtime"
)

// verb is one of a VM's, with what it does in each state: the state afterwards, or "" for ErrState.
type verb struct {
	name                              string
	call                              func(c *checker, vm *microvm.VM) error
	created, running, paused, stopped microvm.State
}

const gone microvm.State = "gone"

var verbs = []verb{
	{"start", func(c *checker, vm *microvm.VM) error { return vm.Start(c.ctx, nil) }, microvm.StateRunning, microvm.StateRunning, "", microvm.StateRunning},
	{"stop", func(c *checker, vm *microvm.VM) error {
		_, err := vm.Stop(c.ctx, &microvm.StopOptions{Grace: grace})
		return err
	}, "", microvm.StateStopped, microvm.StateStopped, microvm.StateStopped},
	{"force", func(c *checker, vm *microvm.VM) error {
		_, err := vm.Stop(c.ctx, &microvm.StopOptions{Force: true})
		return err
	}, "", microvm.StateStopped, microvm.StateStopped, microvm.StateStopped},
	{"pause", func(c *checker, vm *microvm.VM) error { return vm.Pause(c.ctx) }, "", microvm.StatePaused, microvm.StatePaused, ""},
	{"resume", func(c *checker, vm *microvm.VM) error { return vm.Resume(c.ctx) }, "", microvm.StateRunning, microvm.StateRunning, ""},
	{"rename", func(c *checker, vm *microvm.VM) error { return vm.Rename(c.ctx, "other") }, microvm.StateCreated, microvm.StateRunning, microvm.StatePaused, microvm.StateStopped},
	{"trim", func(c *checker, vm *microvm.VM) error {
		freed, err := vm.Trim(c.ctx)
		if freed < 0 || err != nil && freed != 0 {
			c.Errorf("trim: %d bytes, %v", freed, err)
		}
		return err
	}, microvm.StateCreated, "", "", microvm.StateStopped},
	{"destroy", func(c *checker, vm *microvm.VM) error { return vm.Destroy(c.ctx) }, gone, gone, gone, gone},
	{"dial", func(c *checker, vm *microvm.VM) error {
		conn, err := vm.Dial(c.ctx, 4242)
		if err == nil {
			conn.Close()
		}
		if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, microvm.ErrNoAnswer) {
			return nil // whether somebody listens, or answers at all, is the guest's
		}
		return err
	}, "", microvm.StateRunning, microvm.StatePaused, ""},
	{"listen", func(c *checker, vm *microvm.VM) error {
		l, err := vm.Listen(c.ctx, 4242)
		if err == nil {
			l.Close()
		}
		return err
	}, "", microvm.StateRunning, microvm.StatePaused, ""},
	{"console", func(c *checker, vm *microvm.VM) error {
		r, err := vm.Console(c.ctx, nil)
		if err == nil {
			r.Close()
		}
		return err
	}, "", microvm.StateRunning, microvm.StatePaused, microvm.StateStopped},
}

var states = group{"states", stateCases()}

// stateCases is every verb in every state.
func stateCases() []testCase {
	var cases []testCase
	for _, v := range verbs {
		for _, from := range []struct{ state, want microvm.State }{
			{microvm.StateCreated, v.created}, {microvm.StateRunning, v.running}, {microvm.StatePaused, v.paused}, {microvm.StateStopped, v.stopped},
		} {
			if v.name == "dial" && from.state == microvm.StatePaused {
				continue // a paused guest answers nobody
			}
			cases = append(cases, testCase{fmt.Sprintf("%s %s", v.name, from.state), func(c *checker) { v.check(c, from.state, from.want) }})
		}
		cases = append(cases, testCase{v.name + " destroyed", func(c *checker) {
			vm := c.create("one")
			c.ok(vm.Destroy(c.ctx))
			c.is(v.call(c, vm), microvm.ErrNotFound)
		}})
	}
	return append(cases, []testCase{
		{"start many times at once", func(c *checker) {
			vm := c.create("one")
			var calling sync.WaitGroup
			for range 5 {
				calling.Go(func() {
					if err := vm.Start(c.ctx, nil); err != nil {
						c.Error(err)
					}
				})
			}
			calling.Wait()
			c.state(vm, microvm.StateRunning)
		}},
		{"machines are apart", func(c *checker) {
			one, two := c.in("one", microvm.StateRunning), c.in("two", microvm.StateRunning)
			c.ok(one.Destroy(c.ctx))
			c.state(two, microvm.StateRunning)
		}},
		{"several at once", func(c *checker) {
			var calling sync.WaitGroup
			for i := range 4 {
				calling.Go(func() {
					vm, err := c.rt.Create(c.ctx, fmt.Sprint(i), c.h.Spec)
					if err == nil {
						err = vm.Start(c.ctx, nil)
					}
					if err == nil {
						_, err = vm.Stop(c.ctx, &microvm.StopOptions{Force: true})
					}
					if err == nil {
						err = vm.Destroy(c.ctx)
					}
					if err != nil {
						c.Error(err)
					}
				})
			}
			calling.Wait()
			if got := c.list(nil); len(got) != 0 {
				c.Errorf("left: %q", got)
			}
		}},
	}...)
}

func (v verb) check(c *checker, from, want microvm.State) {
	vm := c.in("one", from)
	err := v.call(c, vm)
	switch want {
	case "":
		c.is(err, microvm.ErrState)
		c.state(vm, from)
	case gone:
		c.ok(err)
		_, err := vm.Info(c.ctx)
		c.is(err, microvm.ErrNotFound)
	default:
		c.ok(err)
		c.state(vm, want)
		if v.name != "listen" { // a port is taken once
			c.ok(v.call(c, vm)) // idempotent towards its goal
		}
		c.state(vm, want)
	}
}
