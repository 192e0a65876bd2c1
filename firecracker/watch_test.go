//go:build linux

package firecracker

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/testing/fakevmm"
	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
	"github.com/tangle-network/microvm-runtime/internal/testing/tinyguest"
)

// openFiles counts this process's descriptors of what part stands in the name of.
func openFiles(t *testing.T, part string) (n int) {
	t.Helper()
	links, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && strings.Contains(target, part) {
			n++
		}
	}
	return n
}

// TestWatchOfAnEarlierRunEnds: another runtime stops and starts the machine again and again; who watched the runs before has nothing of them.
func TestWatchOfAnEarlierRunEnds(t *testing.T) {
	o := fakeOptions(t, fakevmm.Faults{})
	before := openFiles(t, "[pidfd]")
	watcher, actor := mustNew(t, o), mustNew(t, o)
	vm, err := actor.Create(t.Context(), "machine", microvm.Spec{Diskless: true})
	if err != nil {
		t.Fatal(err)
	}
	watched, err := watcher.VM(t.Context(), "machine")
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		if err := vm.Start(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		if err := watched.Resume(t.Context()); err != nil { // it runs: this only makes the runtime look at the VMM
			t.Fatal(err)
		}
		if n := openFiles(t, "[pidfd]") - before; n != 2 {
			t.Errorf("%d pidfds of one VMM in two runtimes", n)
		}
		if n := openFiles(t, o.Slice+"/"); n != 0 {
			t.Errorf("%d descriptors of leaves", n)
		}
		if _, err := vm.Stop(t.Context(), &microvm.StopOptions{Force: true}); err != nil {
			t.Fatal(err)
		}
	}
	for _, rt := range []*microvm.Runtime{watcher, actor} {
		if err := rt.Close(); err != nil {
			t.Error(err)
		}
	}
	if n := openFiles(t, "[pidfd]") - before; n != 0 {
		t.Errorf("%d pidfds are left", n)
	}
}

func mustNew(t *testing.T, o Options) *microvm.Runtime {
	t.Helper()
	rt, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { rt.Close() })
	return rt
}

// TestListWatchesNothing: to look at machines that others started costs no descriptor and no goroutine.
func TestListWatchesNothing(t *testing.T) {
	o := fakeOptions(t, fakevmm.Faults{})
	actor, looker := mustNew(t, o), mustNew(t, o)
	vm, err := actor.Create(t.Context(), "machine", microvm.Spec{Diskless: true})
	if err == nil {
		err = vm.Start(t.Context(), nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	before := openFiles(t, "[pidfd]")
	infos, err := looker.List(t.Context(), nil)
	if err != nil || len(infos) != 1 || infos[0].State != microvm.StateRunning {
		t.Errorf("list: %+v, %v", infos, err)
	}
	if n := openFiles(t, "[pidfd]") - before; n != 0 {
		t.Errorf("%d more pidfds", n)
	}
}

// TestWhoStartedItSaysHowItEnded: a process that only adopted a VMM leaves the verdict to the one that is told by the kernel.
func TestWhoStartedItSaysHowItEnded(t *testing.T) {
	o := fakeOptions(t, fakevmm.Faults{})
	rt := mustNew(t, o)
	vm, err := rt.Create(t.Context(), "machine", microvm.Spec{Diskless: true})
	if err != nil {
		t.Fatal(err)
	}
	starter := child(t.Context(), order{Options: childOptionsOf(o), Verb: "start", Name: "machine", Stay: true})
	stay, err := starter.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := starter.StdoutPipe()
	if err == nil {
		err = starter.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	if said, err := bufio.NewReader(out).ReadString('\n'); err != nil || said != "ok\n" {
		t.Fatalf("the starter said %q, %v", said, err)
	}
	info, err := vm.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan microvm.Exit, 1)
	go func() {
		exit, err := vm.Wait(context.Background())
		if err != nil {
			t.Error(err)
		}
		ended <- exit
	}()
	if err := syscall.Kill(info.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if exit := <-ended; exit.Reason != microvm.ReasonCrashed || exit.Signal != int(syscall.SIGKILL) {
		t.Errorf("exit %+v", exit)
	}
	if err := errors.Join(stay.Close(), starter.Wait()); err != nil {
		t.Error(err)
	}
}

// TestCancelledStopOfAPausedMachine: the ladder resumed it, so it runs, and that is what is told.
func TestCancelledStopOfAPausedMachine(t *testing.T) {
	vm, _ := fakeMachine(t, fakevmm.Faults{Deaf: true})
	if err := errors.Join(vm.Start(t.Context(), nil), vm.Pause(t.Context())); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stopped := make(chan error, 1)
	go func() {
		_, err := vm.Stop(ctx, &microvm.StopOptions{Grace: time.Hour})
		stopped <- err
	}()
	for soon := within(t); stateOfVM(t, vm) != microvm.StateRunning; time.Sleep(time.Millisecond) {
		if soon.Err() != nil {
			t.Fatal("it is not resumed")
		}
	}
	cancel()
	if err := <-stopped; !errors.Is(err, context.Canceled) {
		t.Errorf("Stop = %v", err)
	}
	if got := stateOfVM(t, vm); got != microvm.StateRunning {
		t.Errorf("state %s, and the VMM was resumed", got)
	}
	if err := vm.Pause(t.Context()); err != nil || stateOfVM(t, vm) != microvm.StatePaused {
		t.Errorf("Pause = %v, state %s", err, stateOfVM(t, vm))
	}
}

// TestForceOvertakes: who stops with patience holds nobody up.
func TestForceOvertakes(t *testing.T) {
	for name, end := range map[string]func(*microvm.VM) error{
		"stop with force": func(vm *microvm.VM) error {
			exit, err := vm.Stop(t.Context(), &microvm.StopOptions{Force: true})
			if err == nil && exit.Reason != microvm.ReasonForced {
				t.Errorf("exit %+v", exit)
			}
			return err
		},
		"destroy": func(vm *microvm.VM) error { return vm.Destroy(t.Context()) },
	} {
		t.Run(name, func(t *testing.T) {
			vm, _ := fakeMachine(t, fakevmm.Faults{Deaf: true})
			if err := vm.Start(t.Context(), nil); err != nil {
				t.Fatal(err)
			}
			begun, stopped := make(chan struct{}), make(chan error)
			go func() {
				close(begun)
				exit, err := vm.Stop(t.Context(), &microvm.StopOptions{Grace: time.Hour})
				if err == nil && exit.Reason != microvm.ReasonForced {
					t.Errorf("the patient one: %+v", exit)
				}
				stopped <- err
			}()
			<-begun
			if err := end(vm); err != nil {
				t.Error(err)
			}
			if err := <-stopped; err != nil && !errors.Is(err, microvm.ErrNotFound) {
				t.Errorf("the patient one: %v", err)
			}
		})
	}
}

// TestPauseIsRefused where the version must not be used for it, and is not where it may.
func TestPauseIsRefused(t *testing.T) {
	for version, refused := range map[string]bool{"1.12.1": false, "1.15.1": false, "1.16.0": true, "1.16.1": true} {
		vm, _ := fakeMachine(t, fakevmm.Faults{Version: version})
		if err := vm.Start(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		err := vm.Pause(t.Context())
		if !refused && err != nil || refused && (!errors.Is(err, microvm.ErrUnsupported) || !strings.Contains(err.Error(), version) || !strings.Contains(err.Error(), "use 1.15.1")) {
			t.Errorf("Pause on %s = %v", version, err)
		}
		if want := map[bool]microvm.State{false: microvm.StatePaused, true: microvm.StateRunning}[refused]; stateOfVM(t, vm) != want {
			t.Errorf("on %s it is %s", version, stateOfVM(t, vm))
		}
	}
}

// TestRealGuestFasterThanStart: a guest that ended itself before anybody could ask its VMM has run; one that never began has not.
func TestRealGuestFasterThanStart(t *testing.T) {
	for after, want := range map[tinyguest.After]bool{tinyguest.Reset: true, tinyguest.Halt: false} {
		r := newRig(t, ring.Real(t), false, tinyguest.Program{Text: marker + "\n", After: after})
		vm := r.create("one")
		r.setHook(func(point string) error {
			if point == "start/vmm:before" {
				w := r.driver.watched[vm.UID()]
				if !want {
					return w.process.Kill()
				}
				<-w.process.Done()
			}
			return nil
		})
		err := vm.Start(t.Context(), nil)
		if !want {
			if !errors.Is(err, microvm.ErrExited) {
				t.Errorf("Start of one that was killed = %v", err)
			}
			continue
		}
		exit, waited := vm.Wait(t.Context())
		if err != nil || waited != nil || exit.Reason != microvm.ReasonGuest {
			t.Errorf("Start = %v, Wait = %+v, %v", err, exit, waited)
		}
		console, err := vm.Console(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(console)
		if err := errors.Join(err, console.Close()); err != nil || string(text) != marker+"\n" {
			t.Errorf("console %q, %v", text, err)
		}
	}
}
