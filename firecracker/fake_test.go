//go:build linux

package firecracker

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/netns"
	"github.com/tangle-network/microvm-runtime/internal/setup"
	"github.com/tangle-network/microvm-runtime/internal/testing/fakevmm"
	"github.com/tangle-network/microvm-runtime/runtimetest"
)

// fakeKernel writes a kernel that fake VMMs boot.
func fakeKernel(t *testing.T, kernel fakevmm.Kernel) string {
	t.Helper()
	text, err := json.Marshal(kernel)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "kernel")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// fakeOptions are bare options on fake VMMs with faults.
func fakeOptions(t *testing.T, faults fakevmm.Faults) Options {
	t.Helper()
	return fakeOptionsOn(t, faults, nil)
}

// fakeOptionsOn is fakeOptions with a network namespace that stands for the host's; nil: an empty one.
func fakeOptionsOn(t *testing.T, faults fakevmm.Faults, host *netns.Namespace) Options {
	t.Helper()
	binary, err := fakevmm.Install(t.TempDir(), faults)
	if err != nil {
		t.Fatal(err)
	}
	o := testOptionsOn(t, setup.Parts{Firecracker: binary, Jailer: binary}, true, host)
	o.Kernel = fakeKernel(t, fakevmm.Kernel{Text: marker + "\n"})
	return o
}

// fakeMachine returns a machine on fake VMMs with faults, and how to change them.
func fakeMachine(t *testing.T, faults fakevmm.Faults) (*microvm.VM, func(fakevmm.Faults)) {
	t.Helper()
	o := fakeOptions(t, faults)
	rt, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { rt.Close() })
	vm, err := rt.Create(t.Context(), "machine", microvm.Spec{Diskless: true})
	if err != nil {
		t.Fatal(err)
	}
	return vm, func(faults fakevmm.Faults) {
		if err := fakevmm.Inject(o.Firecracker, faults); err != nil {
			t.Fatal(err)
		}
	}
}

func TestContractFake(t *testing.T) {
	options := map[*microvm.Runtime]Options{}
	open := func(t *testing.T, o Options) *microvm.Runtime {
		rt, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		options[rt] = o
		t.Cleanup(func() { rt.Close() })
		return rt
	}
	runtimetest.Run(t, runtimetest.Harness{
		New:    func(t *testing.T) *microvm.Runtime { return open(t, fakeOptions(t, fakevmm.Faults{})) },
		Reopen: func(t *testing.T, rt *microvm.Runtime) *microvm.Runtime { return open(t, options[rt]) },
		Census: func(t *testing.T, rt *microvm.Runtime) string { return holdings(t, options[rt]) },
		Spec:   microvm.Spec{Diskless: true, MemoryMiB: 128},
		Ends:   &microvm.Spec{Diskless: true, MemoryMiB: 128, Kernel: fakeKernel(t, fakevmm.Kernel{Text: marker + "\n", Reset: true})},
		Marker: marker,
	})
}

func stateOfVM(t *testing.T, vm *microvm.VM) microvm.State {
	t.Helper()
	info, err := vm.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return info.State
}

func TestOldVersionIsRefusedBeforeAnything(t *testing.T) {
	for version, fits := range map[string]bool{"1.6.0": false, "1.7.0": true, "1.9.1": true, "1.12.1": true, "1.16.1": true} {
		o := fakeOptions(t, fakevmm.Faults{Version: version})
		rt, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		vm, err := rt.Create(t.Context(), "machine", microvm.Spec{Diskless: true})
		if !fits {
			if !errors.Is(err, microvm.ErrUnsupported) || !strings.Contains(err.Error(), "1.7.0") {
				t.Errorf("Create with %s = %v, want ErrUnsupported that names 1.7.0", version, err)
			}
			if all, err := rt.List(t.Context(), nil); err != nil || len(all) != 0 {
				t.Errorf("List after it = %v, %v", all, err)
			}
		} else if err == nil {
			err = vm.Start(t.Context(), nil)
		}
		if fits && err != nil {
			t.Errorf("with %s: %v", version, err)
		}
		rt.Close()
	}
}

func TestBinaryIsAskedAgainWhenReplaced(t *testing.T) {
	o := fakeOptions(t, fakevmm.Faults{})
	b := binary{option: "Firecracker", path: o.Firecracker}
	first, err := b.ask(t.Context())
	if err != nil || first.String() != "1.12.1" {
		t.Fatal(first, err)
	}
	if err := fakevmm.Inject(o.Firecracker, fakevmm.Faults{Version: "1.14.4"}); err != nil {
		t.Fatal(err)
	}
	if same, err := b.ask(t.Context()); err != nil || same != first {
		t.Errorf("asked again without need: %v, %v", same, err)
	}
	if err := os.Chtimes(o.Firecracker, time.Now(), time.Now()); err != nil {
		t.Fatal(err)
	}
	if now, err := b.ask(t.Context()); err != nil || now.String() != "1.14.4" {
		t.Errorf("the binary that replaced it is %v, %v", now, err)
	}
	b.path += "-none"
	if _, err := b.ask(t.Context()); !errors.Is(err, microvm.ErrInvalid) {
		t.Errorf("no binary: %v, want ErrInvalid", err)
	}
}

// A VMM that does not start, or not as asked, is undone, and the error has its words; with the fault gone the same machine starts.
func TestStartThatGoesWrongIsUndone(t *testing.T) {
	for name, row := range map[string]struct {
		faults fakevmm.Faults
		want   error
		says   string
	}{
		"refuses":                  {fakevmm.Faults{Refuse: "the moon is full"}, microvm.ErrExited, "the moon is full"},
		"dies at the API":          {fakevmm.Faults{Requests: map[string]fakevmm.Fault{"GET /vm/config": {Die: true}}}, microvm.ErrExited, "signal 9"},
		"answers garbage":          {fakevmm.Faults{Requests: map[string]fakevmm.Fault{"GET /vm/config": {Garbage: "?\r\n\r\n"}}}, nil, "not an answer"},
		"refuses the API":          {fakevmm.Faults{Requests: map[string]fakevmm.Fault{"GET /vm/config": {Status: 500}}}, nil, "as told"},
		"ignores what it was told": {fakevmm.Faults{Lax: true}, microvm.ErrUnsupported, "machine-config"},
	} {
		t.Run(name, func(t *testing.T) {
			vm, inject := fakeMachine(t, fakevmm.Faults{})
			inject(row.faults)
			err := vm.Start(t.Context(), nil)
			if err == nil || row.want != nil && !errors.Is(err, row.want) || !strings.Contains(err.Error(), row.says) {
				t.Errorf("Start = %v, want %v with %q", err, row.want, row.says)
			}
			if s := stateOfVM(t, vm); s != microvm.StateCreated {
				t.Errorf("the machine is %s", s)
			}
			inject(fakevmm.Faults{})
			if err := vm.Start(t.Context(), nil); err != nil {
				t.Errorf("Start without the fault = %v", err)
			}
		})
	}
}

// A VMM that does not answer costs its caller's deadline and nobody else's, and what a call was about is told truly afterwards.
func TestHungVMM(t *testing.T) {
	silent, inject := fakeMachine(t, fakevmm.Faults{})
	inject(fakevmm.Faults{Silent: true})
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := silent.Start(ctx, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Start of a VMM that never listens = %v", err)
	}
	if s := stateOfVM(t, silent); s != microvm.StateCreated {
		t.Errorf("the machine is %s", s)
	}
	inject(fakevmm.Faults{})
	if err := silent.Start(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	inject(fakevmm.Faults{Requests: map[string]fakevmm.Fault{"PATCH /vm": {Hang: true}, "PUT /actions": {Hang: true}}})
	pausing, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := silent.Pause(pausing); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Pause of a VMM that hangs = %v", err)
	}
	if s := stateOfVM(t, silent); s != microvm.StateRunning {
		t.Errorf("after it the machine is %s", s)
	}
	exit, err := silent.Stop(t.Context(), &microvm.StopOptions{Grace: 50 * time.Millisecond})
	if err != nil || exit.Reason != microvm.ReasonForced {
		t.Errorf("Stop of a VMM that hangs = %+v, %v", exit, err)
	}
}

// The ladder: a guest that hears Ctrl-Alt-Del ends by itself, one that does not is ended by force, and not before its time.
func TestStopLadder(t *testing.T) {
	for deaf, want := range map[bool]microvm.Reason{false: microvm.ReasonStopped, true: microvm.ReasonForced} {
		grace := time.Minute // what hears ends in time on the slowest of machines
		if deaf {
			grace = 300 * time.Millisecond
		}
		vm, _ := fakeMachine(t, fakevmm.Faults{Deaf: deaf})
		if err := vm.Start(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		exit, err := vm.Stop(t.Context(), &microvm.StopOptions{Grace: grace})
		if err != nil || exit.Reason != want {
			t.Errorf("deaf %v: Stop = %+v, %v, want %s", deaf, exit, err, want)
		}
		if took := time.Since(begin); deaf && took < grace {
			t.Errorf("forced after %v of %v", took, grace)
		}
	}
	t.Run("nothing escalates after the context", func(t *testing.T) {
		vm, inject := fakeMachine(t, fakevmm.Faults{Deaf: true})
		if err := vm.Start(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if _, err := vm.Stop(ctx, &microvm.StopOptions{Grace: 10 * time.Millisecond * 20}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Stop = %v", err)
		}
		if s := stateOfVM(t, vm); s != microvm.StateRunning {
			t.Errorf("after it the machine is %s", s)
		}
		inject(fakevmm.Faults{})
		if exit, err := vm.Stop(t.Context(), nil); err != nil || exit.Reason != microvm.ReasonStopped {
			t.Errorf("Stop = %+v, %v", exit, err)
		}
	})
}

// An interrupted pause that the VMM has carried out is not forgotten: the next resume tells the VMM.
func TestPauseWhoseAnswerIsLost(t *testing.T) {
	vm, inject := fakeMachine(t, fakevmm.Faults{})
	if err := vm.Start(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	inject(fakevmm.Faults{Requests: map[string]fakevmm.Fault{"PATCH /vm": {Garbage: "HTTP/1.1 204 No"}}})
	if err := vm.Pause(t.Context()); err == nil {
		t.Error("Pause without an answer succeeded")
	}
	inject(fakevmm.Faults{})
	for _, want := range []struct {
		call  func(context.Context) error
		state microvm.State
	}{{vm.Resume, microvm.StateRunning}, {vm.Pause, microvm.StatePaused}, {vm.Resume, microvm.StateRunning}} {
		if err := want.call(t.Context()); err != nil || stateOfVM(t, vm) != want.state {
			t.Errorf("%v, and the machine is %s, want %s", err, stateOfVM(t, vm), want.state)
		}
	}
}

func TestDialFake(t *testing.T) {
	vm, _ := fakeMachine(t, fakevmm.Faults{})
	if err := vm.Start(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	conn, err := vm.Dial(t.Context(), 7)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "hello"); err != nil {
		t.Fatal(err)
	}
	text := make([]byte, 5)
	if _, err := io.ReadFull(conn, text); err != nil || string(text) != "hello" {
		t.Errorf("echo = %q, %v", text, err)
	}
	if conn, err := vm.Dial(t.Context(), 8); err == nil {
		conn.Close()
		t.Error("a port where nobody listens was connected to")
	}
}
