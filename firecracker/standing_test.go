//go:build linux

package firecracker

import (
	"context"
	"errors"
	"testing"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/firecracker/api"
	"github.com/tangle-network/microvm-runtime/internal/state"
	"github.com/tangle-network/microvm-runtime/internal/testing/fakevmm"
)

// doing is what a machine's VMM says that it does.
func (r *rig) doing(vm *microvm.VM) string {
	r.t.Helper()
	record, err := r.driver.state.ReadRecord(vm.UID())
	var instance api.Instance
	if err == nil {
		err = r.driver.askVMM(r.t.Context(), &record, func(ctx context.Context, c *api.Client) (err error) {
			instance, err = c.GetInstance(ctx)
			return err
		})
	}
	if err != nil {
		r.t.Fatal(err)
	}
	return instance.State
}

// taking is what is written down of a snapshot that is being taken.
func (r *rig) taking(vm *microvm.VM) *state.Taking {
	r.t.Helper()
	run, err := r.driver.state.ReadRun(vm.UID())
	if err != nil || run == nil {
		r.t.Fatal(run, err)
	}
	return run.Taking
}

// TestStandsAfterAFailedSnapshot: a machine that could not be let go on is by who works on it next.
func TestStandsAfterAFailedSnapshot(t *testing.T) {
	r := rigOf(t, fakeOptions(t, fakevmm.Faults{}))
	vm := r.create("one")
	r.start(vm)
	inject := func(requests map[string]fakevmm.Fault) error {
		return fakevmm.Inject(r.options.Firecracker, fakevmm.Faults{Requests: requests})
	}
	r.setHook(func(point string) error {
		if point == "snapshot/create:after" {
			return errors.Join(errInjected, inject(map[string]fakevmm.Fault{"PATCH /vm": {Status: 400}}))
		}
		return nil
	})
	if _, err := vm.Snapshot(t.Context(), "warm", nil); !errors.Is(err, errInjected) {
		t.Error(err)
	}
	if doing := r.doing(vm); doing != "Paused" {
		t.Fatalf("its VMM is %s: this test shows nothing", doing)
	}
	if err := inject(nil); err != nil {
		t.Fatal(err)
	}
	if info := r.info(vm); info.State != microvm.StateRunning {
		t.Errorf("the machine is %s", info.State)
	}
	if _, err := r.runtime.Recover(t.Context(), nil); err != nil {
		t.Error(err)
	}
	if doing, taking := r.doing(vm), r.taking(vm); doing != "Running" || taking != nil {
		t.Errorf("its VMM is %s, and %+v is left to do", doing, taking)
	}
	r.destroy(vm)
}

// leaveTaking leaves a machine as an interrupted snapshot does. Without a token it has no workload that stands.
func (r *rig) leaveTaking(vm *microvm.VM, token string) {
	r.t.Helper()
	lock, err := r.driver.state.Lock(r.t.Context(), vm.UID())
	if err != nil {
		r.t.Fatal(err)
	}
	defer lock.Unlock()
	run, err := r.driver.state.ReadRun(vm.UID())
	if err == nil {
		run.Taking = &state.Taking{Stands: true, Token: token}
		err = lock.WriteRun(*run)
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

// TestStandsOnlyOnce: a machine that was let go on is not again, because its workload is not yet: its user may have paused it since.
func TestStandsOnlyOnce(t *testing.T) {
	r := rigOf(t, fakeOptions(t, fakevmm.Faults{DeafVsock: true}))
	vm := r.create("one")
	r.start(vm)
	r.leaveTaking(vm, "warm")
	recovered := make(chan struct{})
	go func() {
		defer close(recovered)
		r.runtime.Recover(context.Background(), nil)
	}()
	for deadline := time.Now().Add(10 * time.Second); r.taking(vm).Stands; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Error("it is let go on for ever")
			break
		}
	}
	if taking := r.taking(vm); taking == nil || taking.Token == "" {
		t.Errorf("left to do: %+v, but nobody has told the workload", taking)
	}
	r.reopen() // ends the waiting for its agent
	<-recovered
}
