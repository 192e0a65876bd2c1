//go:build linux

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/firecracker"
)

// verb is what can be asked for, and what state it leads to from those in which it makes sense.
type verb struct {
	name    string
	to      map[microvm.State]microvm.State
	between []microvm.State // where an interrupted one may stay, beside its beginning and its end
	call    func(ctx context.Context, w *worker) error
}

const (
	created    = microvm.StateCreated
	running    = microvm.StateRunning
	paused     = microvm.StatePaused
	stopped    = microvm.StateStopped
	destroying = microvm.StateDestroying
)

const crash = "crash"

type states = map[microvm.State]microvm.State

var verbs = []verb{
	{"create", states{absent: created}, []microvm.State{microvm.StateCreating}, create},
	{"start", states{created: running, stopped: running, running: running}, nil, with(func(vm *microvm.VM, ctx context.Context) error { return vm.Start(ctx, nil) })},
	{"stop", states{running: stopped, paused: stopped, stopped: stopped}, []microvm.State{running}, with(func(vm *microvm.VM, ctx context.Context) error {
		_, err := vm.Stop(ctx, &microvm.StopOptions{Force: true})
		return err
	})},
	{"pause", states{running: paused, paused: paused}, nil, with((*microvm.VM).Pause)},
	{"resume", states{running: running, paused: running}, nil, with((*microvm.VM).Resume)},
	{crash, states{running: stopped, paused: stopped}, nil, func(ctx context.Context, w *worker) error { return w.crash(ctx) }},
	{"destroy", states{created: absent, running: absent, paused: absent, stopped: absent, destroying: absent, microvm.StateCreating: absent}, []microvm.State{destroying, stopped}, with((*microvm.VM).Destroy)},
}

func create(ctx context.Context, w *worker) error {
	_, err := w.runtime.Create(ctx, w.name, microvm.Spec{Diskless: true})
	return err
}

func with(call func(*microvm.VM, context.Context) error) func(context.Context, *worker) error {
	return func(ctx context.Context, w *worker) error {
		vm, err := w.runtime.VM(ctx, w.name)
		if err != nil {
			return err
		}
		return call(vm, ctx)
	}
}

// way is how a verb is called.
type way struct {
	name       string
	interrupts bool
	call       func(w *worker, v verb, delay time.Duration) error
}

var ways = []way{
	{"here", false, func(w *worker, v verb, _ time.Duration) error { return v.call(context.Background(), w) }},
	{"cancelled", true, func(w *worker, v verb, delay time.Duration) error {
		ctx, cancel := context.WithTimeout(context.Background(), delay)
		defer cancel()
		w.tally.cancelled++
		return v.call(ctx, w)
	}},
	{"in another process", false, func(w *worker, v verb, _ time.Duration) error { return elsewhere(context.Background(), w, v) }},
	{"in another process, killed", true, func(w *worker, v verb, delay time.Duration) error {
		ctx, cancel := context.WithTimeout(context.Background(), delay)
		defer cancel()
		w.tally.killed++
		return elsewhere(ctx, w, v)
	}},
}

// elsewhere calls a verb in a process of its own, which is killed when ctx ends.
func elsewhere(ctx context.Context, w *worker, v verb) error {
	options := w.options
	options.Logger = nil
	text, err := json.Marshal(options)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	out, err := exec.CommandContext(ctx, self, "verb", v.name, w.name, string(text)).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// verbMain is the other process.
func verbMain(args []string) int {
	err := callVerb(args[0], args[1], args[2])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func callVerb(name, machine, options string) error {
	var o firecracker.Options
	if err := json.Unmarshal([]byte(options), &o); err != nil {
		return err
	}
	rt, err := firecracker.New(o)
	if err != nil {
		return err
	}
	defer rt.Close()
	w := &worker{runtime: rt, name: machine}
	for _, v := range verbs {
		if v.name == name {
			return v.call(context.Background(), w)
		}
	}
	return fmt.Errorf("no verb %s", name)
}
