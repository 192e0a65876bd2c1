//go:build linux

package firecracker

import (
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/guest"
	"github.com/tangle-network/microvm-runtime/internal/netns"
	"github.com/tangle-network/microvm-runtime/internal/setup"
	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
)

// labRig is a runtime on the real Firecracker with real Linux guests.
type labRig struct {
	t       *testing.T
	parts   setup.Parts
	options Options
	runtime *microvm.Runtime
}

func newLabRig(t *testing.T, bare bool) *labRig {
	t.Helper()
	return newLabRigOn(t, bare, nil, func(*Options) {})
}

// newLabRigOn is newLabRig with a network namespace that stands for the host's, nil: an empty one, and a change of its options.
func newLabRigOn(t *testing.T, bare bool, host *netns.Namespace, change func(*Options)) *labRig {
	t.Helper()
	p := ring.Lab(t)
	o := testOptionsOn(t, p, bare, host)
	o.Kernel, o.Modules, o.Image, o.Agent, o.MemoryMiB = p.Vmlinux, p.Modules, p.Base, p.Agent, 256
	change(&o)
	r := &labRig{t: t, parts: p, options: o}
	r.open()
	return r
}

// open opens a runtime on the state, as another process would.
func (r *labRig) open() {
	r.t.Helper()
	rt, err := New(r.options)
	if err != nil {
		r.t.Fatal(err)
	}
	r.runtime = rt
	r.t.Cleanup(func() { rt.Close() })
}

func (r *labRig) create(spec microvm.Spec) *microvm.VM {
	r.t.Helper()
	vm, err := r.runtime.Create(r.t.Context(), fmt.Sprint("machine-", time.Now().UnixNano()), spec)
	if err != nil {
		r.t.Fatal(err)
	}
	return vm
}

// start starts a machine; when it does not, its console is shown.
func (r *labRig) start(vm *microvm.VM) {
	r.t.Helper()
	if err := vm.Start(r.t.Context(), nil); err != nil {
		r.t.Fatalf("%v\nconsole:\n%s", err, r.console(vm))
	}
}

func (r *labRig) console(vm *microvm.VM) string {
	reader, err := vm.Console(context.Background(), nil)
	if err != nil {
		return err.Error()
	}
	defer reader.Close()
	text, _ := io.ReadAll(reader)
	return string(text)
}

func (r *labRig) stop(vm *microvm.VM, want microvm.Reason) microvm.Exit {
	r.t.Helper()
	exit, err := vm.Stop(r.t.Context(), &microvm.StopOptions{Grace: 15 * time.Second})
	if err != nil || exit.Reason != want {
		r.t.Fatalf("Stop = %+v, %v, want %s\nconsole:\n%s", exit, err, want, r.console(vm))
	}
	return exit
}

// waitFor waits for a run's end, of which nobody asked us.
func (r *labRig) waitFor(vm *microvm.VM, want microvm.Reason) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
	defer cancel()
	exit, err := vm.Wait(ctx)
	if err != nil || exit.Reason != want {
		r.t.Fatalf("Wait = %+v, %v, want %s\nconsole:\n%s", exit, err, want, r.console(vm))
	}
}

// last runs a script that ends its guest, so that nobody answers any more.
func last(t *testing.T, vm guest.Dialer, script string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	if out, err := guest.Command(vm, "sh", "-c", script).CombinedOutput(ctx); err == nil {
		t.Logf("%s: ended in peace: %s", script, out)
	}
}

// sh runs a script in the guest and returns its output without the last newline.
func sh(t *testing.T, vm guest.Dialer, script string) string {
	t.Helper()
	out, err := guest.Command(vm, "sh", "-c", script).CombinedOutput(t.Context())
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return strings.TrimSuffix(string(out), "\n")
}

// await reads the console until text comes.
func (r *labRig) await(vm *microvm.VM, text string) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
	defer cancel()
	reader, err := vm.Console(ctx, &microvm.ConsoleOptions{Follow: true})
	if err != nil {
		r.t.Fatal(err)
	}
	defer reader.Close()
	var seen strings.Builder
	part := make([]byte, 4096)
	for !strings.Contains(seen.String(), text) {
		n, err := reader.Read(part)
		seen.Write(part[:n])
		if err != nil {
			r.t.Fatalf("%q did not come: %v\n%s", text, err, seen.String())
		}
	}
}
