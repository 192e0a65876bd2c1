//go:build linux

package firecracker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/netns"
	"github.com/tangle-network/microvm-runtime/internal/testing/fakevmm"
	"github.com/tangle-network/microvm-runtime/internal/testing/leak"
	"github.com/tangle-network/microvm-runtime/warmpool"
)

// childEnv makes the test binary one more process that uses a state directory: it holds an order as JSON.
const childEnv = "MICROVM_TEST_CHILD"

func TestMain(m *testing.M) {
	Helper()
	if fakevmm.Invoked() {
		fakevmm.Main()
	}
	if text := os.Getenv(childEnv); text != "" {
		os.Exit(runChild(text))
	}
	os.Exit(leak.Main(m))
}

// order is what a child does: one verb, n times where it is a race.
type order struct {
	Options  childOptions
	Verb     string
	Name     string // Of the machine, or the path of what is imported.
	Spec     microvm.Spec
	Snapshot string // The one that is made, or that is restored; of a fork, the name of the machine that is made.
	Change   microvm.Change
	KillAt   string // The point at which the child kills itself.
	Files    uint64 // Soft RLIMIT_NOFILE. 0 leaves it.
	Times    int
	Start    int  // Of a fleet: how many of its machines are started. Of takers from a pool: how many each takes.
	NoCgroup bool // As on a host without cgroup v2.
	OwnProc  bool // In a PID and a mount namespace of its own, whose /proc is to be mounted.
	Stay     bool // Live on until standard input ends.
}

// childOptions are the options that a child is told.
type childOptions struct {
	Firecracker, Jailer, StateDir, SocketDir, JailDir, Kernel, Slice string
	Bare                                                             bool
	Waiting                                                          int
	Host                                                             string // Path of the network namespace that stands for the host's.
}

func childOptionsOf(o Options) childOptions {
	return childOptions{o.Firecracker, o.Jailer, o.StateDir, o.SocketDir, o.JailDir, o.Kernel, o.Slice, o.Bare, o.WaitingVMMs, o.hostNet.Path()}
}

func (c childOptions) options() Options {
	host, err := netns.Open(c.Host)
	if err != nil {
		panic(err)
	}
	return Options{Firecracker: c.Firecracker, Jailer: c.Jailer, StateDir: c.StateDir, SocketDir: c.SocketDir, JailDir: c.JailDir,
		Kernel: c.Kernel, Slice: c.Slice, Bare: c.Bare, WaitingVMMs: c.Waiting, MemoryMiB: 128, hostNet: host}
}

// child returns the process that carries out an order.
func child(ctx context.Context, o order) *exec.Cmd {
	text, err := json.Marshal(o)
	if err != nil {
		panic(err)
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Env = append(os.Environ(), childEnv+"="+string(text), "GORACE=atexit_sleep_ms=0") // else each waits a second for races to be told
	return cmd
}

// runChild carries out an order. It prints the names of the sentinels that its errors match, one line a call.
func runChild(text string) int {
	var o order
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		panic(err)
	}
	if o.Files > 0 {
		var limit syscall.Rlimit // the hard one stays: the jailer raises its own
		if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
			panic(err)
		}
		limit.Cur = o.Files
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
			panic(err)
		}
	}
	if o.OwnProc {
		if err := errors.Join(syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""), syscall.Mount("proc", "/proc", "proc", 0, "")); err != nil {
			panic(err)
		}
	}
	options := o.Options.options()
	options.hook = func(point string) error {
		if point == o.KillAt {
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
		return nil
	}
	d, err := open(options)
	if err != nil {
		fmt.Println(sentinel(err))
		return 1
	}
	if o.NoCgroup {
		d.slice = nil
	}
	rt := microvm.New(d)
	defer rt.Close()
	for range max(1, o.Times) {
		fmt.Println(sentinel(o.do(context.Background(), rt)))
	}
	if o.Stay {
		io.Copy(io.Discard, os.Stdin)
	}
	return 0
}

func (o order) do(ctx context.Context, rt *microvm.Runtime) error {
	if o.Verb == "fleet" {
		return o.fleet(ctx, rt)
	}
	if o.Verb == "create" {
		_, err := rt.Create(ctx, o.Name, o.Spec)
		return err
	}
	if o.Verb == "restore" {
		_, _, err := rt.Restore(ctx, o.Snapshot, o.Name, nil)
		return err
	}
	if o.Verb == "restore and destroy" {
		vm, _, err := rt.Restore(ctx, o.Snapshot, o.Name, nil)
		if err != nil {
			return err
		}
		return vm.Destroy(ctx)
	}
	if o.Verb == "take" {
		return o.take(ctx, rt)
	}
	if o.Verb == "claim" {
		_, _, err := rt.Claim(ctx, "ready", o.Name, nil)
		return err
	}
	if o.Verb == "import" {
		return o.imports(ctx, rt)
	}
	vm, err := rt.VM(ctx, o.Name)
	if err != nil {
		return err
	}
	switch o.Verb {
	case "start":
		return vm.Start(ctx, nil)
	case "stop":
		_, err := vm.Stop(ctx, &microvm.StopOptions{Force: true})
		return err
	case "pause":
		return vm.Pause(ctx)
	case "resume":
		return vm.Resume(ctx)
	case "snapshot":
		_, err := vm.Snapshot(ctx, o.Snapshot, nil)
		return err
	case "fork":
		_, err := vm.Fork(ctx, []string{o.Snapshot}, nil)
		return err
	case "update":
		return vm.Update(ctx, o.Change)
	case "destroy":
		return vm.Destroy(ctx)
	}
	panic(o.Verb)
}

// take takes machines from a pool, some at a time.
func (o order) take(ctx context.Context, rt *microvm.Runtime) error {
	pool, err := warmpool.Open(ctx, rt, "p", o.Snapshot, &warmpool.Options{Size: poolSize})
	if err != nil {
		return err
	}
	defer pool.Close()
	var mu sync.Mutex
	var errs []error
	var taking sync.WaitGroup
	for i := range 2 {
		taking.Go(func() {
			for n := range o.Start {
				_, _, err := pool.Take(ctx, fmt.Sprint(o.Name, "-", i, "-", n), nil)
				mu.Lock()
				errs = append(errs, err)
				mu.Unlock()
			}
		})
	}
	taking.Wait()
	return errors.Join(errs...)
}

// poolSize is how many machines wait in a pool of a test.
const poolSize = 3

// imports makes a snapshot of the export at Name.
func (o order) imports(ctx context.Context, rt *microvm.Runtime) error {
	f, err := os.Open(o.Name)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = rt.ImportSnapshot(ctx, "", f, &microvm.ImportOptions{Unsigned: true})
	return err
}

// fleet makes machines, each of which publishes at ports of its own, starts some, and destroys the last.
func (o order) fleet(ctx context.Context, rt *microvm.Runtime) error {
	var last *microvm.VM
	for i := range o.Times {
		spec := o.Spec.Copy()
		for k, port := range spec.Network.Publish {
			spec.Network.Publish[k].Host = netip.AddrPortFrom(port.Host.Addr(), port.Host.Port()+uint16(i))
		}
		vm, err := rt.Create(ctx, fmt.Sprint("machine-", i), spec)
		if err != nil {
			return err
		}
		if i < o.Start {
			err = vm.Start(ctx, nil)
		}
		if err != nil {
			return err
		}
		last = vm
	}
	return last.Destroy(ctx)
}

// sentinel says what a caller could branch on.
func sentinel(err error) string {
	if err == nil {
		return "ok"
	}
	for _, words := range []string{"too many open files", "No file descriptors available", "Error(24)"} { // ours, and the VMM's
		if strings.Contains(err.Error(), words) {
			return "descriptors"
		}
	}
	for name, is := range map[string]error{
		"exists": microvm.ErrExists, "state": microvm.ErrState, "not found": microvm.ErrNotFound, "exited": microvm.ErrExited, "busy": microvm.ErrBusy,
	} {
		if errors.Is(err, is) {
			return name
		}
	}
	return "other: " + strings.ReplaceAll(err.Error(), "\n", " | ")
}
