//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/firecracker"
)

// remembered is how many calls of a worker are told when it fails.
const remembered = 30

// patience bounds what must come to pass by itself.
const patience = 20 * time.Second

// tally counts what was done.
type tally struct{ calls, refused, cancelled, killed, lives int }

func (t *tally) add(o tally) {
	t.calls += o.calls
	t.refused += o.refused
	t.cancelled += o.cancelled
	t.killed += o.killed
	t.lives += o.lives
}

func (t tally) String() string {
	return fmt.Sprintf("%d calls, %d refused, %d cancelled, %d callers killed, %d machines lived and died", t.calls, t.refused, t.cancelled, t.killed, t.lives)
}

// worker lives one machine after the other.
type worker struct {
	number  int
	random  *rand.Rand
	options firecracker.Options
	runtime *microvm.Runtime
	name    string
	told    []string
	tally   tally
}

func newWorker(number int, seed uint64, options firecracker.Options) *worker {
	return &worker{number: number, random: rand.New(rand.NewPCG(seed, 0)), options: options, name: fmt.Sprint("w", number)}
}

func (w *worker) run(ctx context.Context) (err error) {
	defer func() {
		if w.runtime != nil {
			err = errors.Join(err, w.runtime.Close())
		}
	}()
	for ctx.Err() == nil {
		if w.runtime == nil || w.random.IntN(20) == 0 {
			if err := w.reopen(); err != nil {
				return err
			}
		}
		if err := w.once(); err != nil {
			return err
		}
	}
	return nil
}

// reopen is another operator's process, or this one after an upgrade.
func (w *worker) reopen() (err error) {
	if w.runtime != nil {
		if err := w.runtime.Close(); err != nil {
			return err
		}
	}
	w.runtime, err = firecracker.New(w.options)
	return err
}

// once makes one call, in one of four ways, and looks at what came of it.
func (w *worker) once() error {
	before, err := w.state()
	if err != nil {
		return err
	}
	verb := w.choose(before)
	way := ways[w.random.IntN(len(ways))]
	if verb.name == crash {
		way = ways[0] // a kill can't be taken back: with an interrupted wait nobody knows when it comes true
	}
	delay := time.Duration(w.random.IntN(25_000)) * time.Microsecond
	failed := way.call(w, verb, delay)
	after, err := w.state()
	w.told = append(w.told, fmt.Sprintf("%s, %s (%v): %s → %s, %v", verb.name, way.name, delay, before, after, failed))
	if err != nil {
		return err
	}
	w.tally.calls++
	if before != absent && after == absent {
		w.tally.lives++
	}
	return w.judge(verb, way, before, after, failed)
}

// choose returns a verb, mostly one that makes sense.
func (w *worker) choose(state microvm.State) verb {
	for {
		verb := verbs[w.random.IntN(len(verbs))]
		if _, sensible := verb.to[state]; sensible || w.random.IntN(8) == 0 {
			return verb
		}
	}
}

// judge holds what came of a call against the verb's table.
func (w *worker) judge(verb verb, way way, before, after microvm.State, failed error) error {
	want, sensible := verb.to[before]
	switch {
	case !sensible && !way.interrupts && failed == nil:
		return fmt.Errorf("%s of a machine that is %s was not refused", verb.name, before)
	case !sensible && after != before:
		return fmt.Errorf("%s made a machine that is %s %s", verb.name, before, after)
	case !sensible:
		w.tally.refused++
	case !way.interrupts && failed != nil:
		return fmt.Errorf("%s of a machine that is %s: %w", verb.name, before, failed)
	case !way.interrupts && after != want:
		return fmt.Errorf("%s made a machine that is %s %s, not %s", verb.name, before, after, want)
	case way.interrupts && !slices.Contains(append([]microvm.State{before, want}, verb.between...), after):
		return fmt.Errorf("interrupted %s made a machine that is %s %s", verb.name, before, after)
	}
	return nil
}

// absent is the state of a machine that is not there.
const absent microvm.State = "absent"

// state asks until the answer is one that a machine can stay in: a verb whose process was killed may be finished by the kernel a little later.
func (w *worker) state() (microvm.State, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	vm, err := w.runtime.VM(ctx, w.name)
	if errors.Is(err, microvm.ErrNotFound) {
		return absent, nil
	}
	if err != nil {
		return "", err
	}
	info, err := vm.Info(ctx)
	if errors.Is(err, microvm.ErrNotFound) {
		return absent, nil
	}
	if err == nil && info.Problem != "" {
		err = errors.New(info.Problem)
	}
	return info.State, err
}

// crash kills the machine's VMM from outside, and waits until the driver knows.
func (w *worker) crash(ctx context.Context) error {
	vm, err := w.runtime.VM(ctx, w.name)
	if err != nil {
		return err
	}
	info, err := vm.Info(ctx)
	if err != nil {
		return err
	}
	if info.PID == 0 {
		return microvm.ErrState
	}
	if err := syscall.Kill(info.PID, syscall.SIGKILL); err != nil {
		return err
	}
	exit, err := vm.Wait(ctx)
	if err == nil && exit.Reason != microvm.ReasonCrashed && exit.Reason != microvm.ReasonUnknown {
		err = fmt.Errorf("a VMM that was killed ended because of %s", exit.Reason)
	}
	return err
}

// story tells the newest calls.
func (w *worker) story() string {
	return strings.Join(w.told[max(0, len(w.told)-remembered):], "\n")
}
