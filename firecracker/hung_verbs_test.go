//go:build linux

package firecracker

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/state"
	"github.com/tangle-network/microvm-runtime/internal/testing/fakevmm"
	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
	"github.com/tangle-network/microvm-runtime/internal/vmm"
)

// hang makes a machine's VMM what one is that waits for itself: it does not answer, and its log says that it stops.
func (r *rig) hang(vm *microvm.VM) {
	r.t.Helper()
	awaitLog(r.t, r, vm, booted)
	for _, pid := range r.pids(vm.UID()) {
		hold(r.t, pid)
	}
	if err := appendLog(r, vm, stopping); err != nil {
		r.t.Error(err)
	}
}

// TestRealVMMHangsInAVerb: whichever verb meets a VMM that hangs over its guest's end ends it, settles the run, and says that the machine has ended, if that is not what was wanted.
func TestRealVMMHangsInAVerb(t *testing.T) {
	bothWays(t, ring.Real(t), func(t *testing.T, r *rig) {
		r.spec.Network = &microvm.Network{}
		var working sync.WaitGroup
		for name, row := range map[string]struct {
			before, verb func(context.Context, *microvm.VM) error
			want         error
			reason       microvm.Reason
		}{
			"pause":    {verb: func(ctx context.Context, vm *microvm.VM) error { return vm.Pause(ctx) }, want: microvm.ErrExited, reason: microvm.ReasonGuest},
			"resume":   {before: func(ctx context.Context, vm *microvm.VM) error { return vm.Pause(ctx) }, verb: func(ctx context.Context, vm *microvm.VM) error { return vm.Resume(ctx) }, want: microvm.ErrExited, reason: microvm.ReasonGuest},
			"snapshot": {verb: func(ctx context.Context, vm *microvm.VM) error { _, err := vm.Snapshot(ctx, "s", nil); return err }, want: microvm.ErrExited, reason: microvm.ReasonGuest},
			"update": {verb: func(ctx context.Context, vm *microvm.VM) error {
				return vm.Update(ctx, microvm.Change{Transmit: &microvm.RateLimit{OpsPerSecond: 7}})
			}, want: microvm.ErrExited, reason: microvm.ReasonGuest},
			"stop":    {verb: func(ctx context.Context, vm *microvm.VM) error { _, err := vm.Stop(ctx, nil); return err }, reason: microvm.ReasonStopped},
			"destroy": {verb: func(ctx context.Context, vm *microvm.VM) error { return vm.Destroy(ctx) }},
		} {
			vm := r.create(name)
			r.start(vm)
			if row.before != nil {
				if err := row.before(t.Context(), vm); err != nil {
					t.Fatal(err)
				}
			}
			r.hang(vm)
			working.Go(func() {
				if err := row.verb(within(t), vm); !errors.Is(err, row.want) {
					t.Errorf("%s = %v, want %v", name, err, row.want)
				}
				if row.reason == "" {
					return
				}
				exit, err := vm.Wait(within(t))
				if err != nil || exit.Reason != row.reason || !strings.Contains(strings.Join(exit.Evidence, ";"), "stopping") {
					t.Errorf("%s: exit %+v, %v, want %s", name, exit, err, row.reason)
				}
				if err := vm.Start(within(t), nil); err != nil {
					t.Errorf("%s: the next start: %v", name, err)
				}
			})
		}
		working.Wait()
	})
}

// TestRealVMMHangsThatWasAdopted: also where another process has started it.
func TestRealVMMHangsThatWasAdopted(t *testing.T) {
	bothWays(t, ring.Real(t), func(t *testing.T, r *rig) {
		r.create("one")
		r.crash("start", "one", "start/commit:after")
		r.reopen()
		vm := r.named("one")
		defer r.destroy(vm)
		r.hang(vm)
		if err := vm.Pause(within(t)); !errors.Is(err, microvm.ErrExited) {
			t.Errorf("Pause = %v", err)
		}
		if exit, err := vm.Wait(within(t)); err != nil || exit.Reason != microvm.ReasonGuest {
			t.Errorf("exit %+v, %v", exit, err)
		}
	})
}

// TestHungVMMIsToldByItsLog: what an older kernel does not tell of another's child is concluded from the log, and what was asked for counts.
func TestHungVMMIsToldByItsLog(t *testing.T) {
	r := rigOf(t, fakeOptions(t, fakevmm.Faults{}))
	vm := r.create("one")
	r.start(vm)
	record := must(r.driver.state.ReadRecord(vm.UID()))
	killed, crashed := vmm.Status{Known: true, Signal: 9}, vmm.Status{Known: true, Code: 148}
	for i, row := range []struct {
		says   string // in the log from now on
		status vmm.Status
		intent microvm.Reason
		want   microvm.Reason
	}{
		{"", vmm.Status{}, "", microvm.ReasonUnknown},
		{"", killed, "", microvm.ReasonCrashed},
		{stopping, vmm.Status{}, "", microvm.ReasonGuest},
		{"", vmm.Status{}, microvm.ReasonStopped, microvm.ReasonStopped},
		{"", vmm.Status{}, microvm.ReasonForced, microvm.ReasonForced},
		{"", killed, "", microvm.ReasonGuest},
		{"", killed, microvm.ReasonStopped, microvm.ReasonStopped},
		{"", crashed, microvm.ReasonStopped, microvm.ReasonCrashed},
		{"exit_code=148", vmm.Status{}, "", microvm.ReasonUnknown},
		{"", killed, "", microvm.ReasonCrashed},
	} {
		if row.says != "" {
			if err := appendLog(r, vm, row.says); err != nil {
				t.Fatal(err)
			}
		}
		run := &state.Run{}
		if row.intent != "" {
			run.Intent = &state.Intent{Reason: row.intent}
		}
		if exit := r.driver.conclude(record, run, row.status); exit.Reason != row.want {
			t.Errorf("%d: %+v, want %s", i, exit, row.want)
		}
	}
}

// TestStopOfAVMMThatHangs over the wish to end has reached its goal, whether the wish is never answered, or the end never comes.
func TestStopOfAVMMThatHangs(t *testing.T) {
	for name, faults := range map[string]fakevmm.Faults{
		"no answer": {Requests: map[string]fakevmm.Fault{"PUT /actions": {Hang: true}}},
		"no end":    {Deaf: true},
	} {
		t.Run(name, func(t *testing.T) {
			r := rigOf(t, fakeOptions(t, faults))
			for stops, want := range map[bool]microvm.Reason{true: microvm.ReasonStopped, false: microvm.ReasonForced} {
				vm := r.create(fmt.Sprint("machine-", stops))
				r.start(vm)
				grace := 100 * time.Millisecond
				if stops {
					grace = time.Minute
					if err := appendLog(r, vm, stopping); err != nil {
						t.Fatal(err)
					}
				}
				if exit, err := vm.Stop(t.Context(), &microvm.StopOptions{Grace: grace}); err != nil || exit.Reason != want {
					t.Errorf("its log says that it stops: %t; exit %+v, %v; want %s", stops, exit, err, want)
				}
			}
		})
	}
}
