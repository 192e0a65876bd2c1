package runtimetest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	microvm "github.com/tangle-network/microvm-runtime"
)

// checker is one case under way.
type checker struct {
	*testing.T
	h   Harness
	rt  *microvm.Runtime
	ctx context.Context
}

// ok fails the case when there is an error.
func (c *checker) ok(err error) {
	c.Helper()
	if err != nil {
		c.Fatal(err)
	}
}

// is fails the case unless err matches the sentinel.
func (c *checker) is(err, sentinel error) {
	c.Helper()
	if !errors.Is(err, sentinel) {
		c.Fatalf("error %v, want one that is %q", err, sentinel)
	}
}

// create makes a machine of the harness's kind.
func (c *checker) create(name string) *microvm.VM {
	c.Helper()
	vm, err := c.rt.Create(c.ctx, name, c.h.Spec)
	c.ok(err)
	return vm
}

// in makes a machine and brings it to a state.
func (c *checker) in(name string, state microvm.State) *microvm.VM {
	c.Helper()
	vm := c.create(name)
	if state == microvm.StateCreated {
		return vm
	}
	c.ok(vm.Start(c.ctx, nil))
	switch state {
	case microvm.StatePaused:
		c.ok(vm.Pause(c.ctx))
	case microvm.StateStopped:
		c.stop(vm)
	}
	return vm
}

func (c *checker) stop(vm *microvm.VM) microvm.Exit {
	c.Helper()
	exit, err := vm.Stop(c.ctx, &microvm.StopOptions{Force: true})
	c.ok(err)
	return exit
}

func (c *checker) info(vm *microvm.VM) microvm.Info {
	c.Helper()
	info, err := vm.Info(c.ctx)
	c.ok(err)
	return info
}

// state fails the case unless the machine is in the state.
func (c *checker) state(vm *microvm.VM, want microvm.State) {
	c.Helper()
	if got := c.info(vm).State; got != want {
		c.Fatalf("state %q, want %q", got, want)
	}
}

// leavesNothing fails the case when there is something else after the call than before.
func (c *checker) leavesNothing(what string, call func()) {
	c.Helper()
	machines, things := c.list(nil), c.census()
	call()
	if got := c.list(nil); !slices.Equal(got, machines) {
		c.Errorf("%s: there are machines %q, and were %q", what, got, machines)
	}
	for thing, change := range changes(things, c.census()) {
		c.Errorf("%s: %s: %s", what, change, thing)
	}
}

// census is what there is on the host, as the harness tells.
func (c *checker) census() string {
	c.Helper()
	if c.h.Census == nil {
		return ""
	}
	return c.h.Census(c.T, c.rt)
}

// changes says of each line that is in one of two texts alone what became of it.
func changes(before, after string) map[string]string {
	changes := map[string]string{}
	for line := range strings.Lines(before) {
		changes[strings.TrimSpace(line)] = "it has gone"
	}
	for line := range strings.Lines(after) {
		line = strings.TrimSpace(line)
		if changes[line] != "" {
			delete(changes, line)
		} else {
			changes[line] = "it was left"
		}
	}
	return changes
}

// list returns the names of all machines, in the order of List.
func (c *checker) list(filter *microvm.Filter) []string {
	c.Helper()
	infos, err := c.rt.List(c.ctx, filter)
	c.ok(err)
	names := []string{}
	for _, info := range infos {
		names = append(names, info.Name)
	}
	return names
}
