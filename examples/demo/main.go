//go:build linux

// Command demo shows a machine's whole life: it creates a jailed microVM, starts it, executes commands in it, stops it, starts it again and destroys it, and shows what
// that left on the host. It takes its parts from the environment; see firecracker.OptionsFromEnv.
package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/firecracker"
	"github.com/tangle-network/microvm-runtime/guest"
	"github.com/tangle-network/microvm-runtime/internal/inventory"
)

func main() {
	nonce := flag.String("nonce", rand.Text(), "text whose sha256 the guest computes")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *nonce); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, nonce string) (err error) {
	options, err := firecracker.OptionsFromEnv(os.LookupEnv)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "microvm-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	options.StateDir, options.SocketDir = filepath.Join(dir, "state"), filepath.Join(dir, "run")
	rt, err := firecracker.New(options)
	if err != nil {
		return err
	}
	defer rt.Close()
	census := inventory.Options{Slice: options.Defaults().Slice, Roots: []string{filepath.Join(dir, "state", "jails"), filepath.Join(dir, "state", "machines"), filepath.Join(dir, "run")}}
	before, err := inventory.Take(census)
	if err != nil {
		return err
	}
	if err := life(ctx, rt, nonce, func() { printInventory("while it runs", census, before) }); err != nil {
		return err
	}
	return leftovers(census, before)
}

// life is the demo proper.
func life(ctx context.Context, rt *microvm.Runtime, nonce string, look func()) error {
	step("create")
	vm, err := rt.Create(ctx, "demo", microvm.Spec{})
	if err != nil {
		return err
	}
	defer vm.Destroy(context.WithoutCancel(ctx)) // after a failure; a second Destroy finds nothing

	step("start")
	if err := start(ctx, vm); err != nil {
		return err
	}
	look()
	if err := commands(ctx, vm, nonce); err != nil {
		return err
	}
	step("console, the last 300 bytes")
	if err := printConsole(ctx, vm); err != nil {
		return err
	}
	step("list")
	if err := list(ctx, rt); err != nil {
		return err
	}
	step("stop")
	exit, err := vm.Stop(ctx, nil)
	if err != nil {
		return err
	}
	fmt.Println(exit)
	step("start again: what was written is still there")
	if err := start(ctx, vm); err != nil {
		return err
	}
	if err := show(ctx, vm, "cat", "/root/note"); err != nil {
		return err
	}
	step("destroy")
	return vm.Destroy(ctx)
}

// start starts the machine and prints where the time went.
func start(ctx context.Context, vm *microvm.VM) error {
	if err := vm.Start(ctx, nil); err != nil {
		printConsole(ctx, vm)
		return err
	}
	begin := time.Now()
	if err := guest.Command(vm, "true").Run(ctx); err != nil {
		return err
	}
	exec := time.Since(begin)
	health, err := guest.GetHealth(ctx, vm)
	if err != nil {
		return err
	}
	info, err := vm.Info(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("%s runs as process %d, jailed: %v\n", info.Name, info.PID, info.Jailed)
	for _, mark := range info.Timeline {
		fmt.Printf("  %-9s %9.3f ms\n", mark.Name, (mark.End-mark.Begin).Seconds()*1000)
	}
	fmt.Printf("  %-9s %9.3f ms of the guest's own clock until its agent listened\n  %-9s %9.3f ms for a command that does nothing\n", "kernel", health.Ready.Seconds()*1000, "exec", exec.Seconds()*1000)
	return nil
}

func commands(ctx context.Context, vm *microvm.VM, nonce string) error {
	step("execute")
	for _, args := range [][]string{
		{"grep", "PRETTY_NAME", "/etc/os-release"},
		{"uname", "-sr"},
		{"sh", "-c", "echo to standard output; echo to standard error >&2"},
		{"sh", "-c", "echo written in the first run > /root/note"},
	} {
		if err := show(ctx, vm, args...); err != nil {
			return err
		}
	}
	hash := guest.Command(vm, "sha256sum")
	hash.Stdin = strings.NewReader(nonce)
	out, err := hash.Output(ctx)
	if err != nil {
		return err
	}
	got, _, _ := strings.Cut(string(out), " ")
	if want := fmt.Sprintf("%x", sha256.Sum256([]byte(nonce))); got != want {
		return fmt.Errorf("the guest says that the sha256 of %q is %q, and it is %s", nonce, got, want)
	}
	fmt.Printf("$ printf %%s %s | sha256sum\n%s, as computed here\n", nonce, got)

	fmt.Println("$ exit 7")
	exit := (*guest.ExitError)(nil)
	if err := guest.Command(vm, "sh", "-c", "exit 7").Run(ctx); !errors.As(err, &exit) || exit.Code != 7 {
		return fmt.Errorf("a command that exits with 7 gave %v", err)
	}
	fmt.Println("exit status 7")
	return nil
}

// show executes a command with our own streams.
func show(ctx context.Context, vm *microvm.VM, args ...string) error {
	fmt.Println("$", strings.Join(args, " "))
	cmd := guest.Command(vm, args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stdout
	return cmd.Run(ctx)
}

func printConsole(ctx context.Context, vm *microvm.VM) error {
	r, err := vm.Console(ctx, &microvm.ConsoleOptions{Tail: 300})
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.Copy(os.Stdout, r)
	return err
}

func list(ctx context.Context, rt *microvm.Runtime) error {
	infos, err := rt.List(ctx, nil)
	for _, info := range infos {
		fmt.Println(info.Name, info.UID, info.State, info.Spec.VCPUs, "vCPU", info.Spec.MemoryMiB, "MiB")
	}
	return err
}

func printInventory(when string, census inventory.Options, before inventory.Census) {
	now, err := inventory.Take(census)
	if err != nil {
		fmt.Println(err)
		return
	}
	changes := inventory.Diff(before, now)
	fmt.Printf("the host %s: %d things more\n", when, len(changes.Added))
	for _, item := range changes.Added {
		if item.Kind == "process" || item.Kind == "cgroup" || item.Kind == "socket" || item.Kind == "fifo" {
			fmt.Printf("  + %s %s\n", item.Kind, item.Name)
		}
	}
}

// leftovers shows what the machine left on the host, and fails when that is anything but the journal.
func leftovers(census inventory.Options, before inventory.Census) error {
	after, err := inventory.Take(census)
	if err != nil {
		return err
	}
	step("the host afterwards, as a diff")
	changes := inventory.Diff(before, after)
	left := changes.Added[:0]
	for _, item := range changes.Added {
		if filepath.Base(item.Name) != "journal" && filepath.Base(item.Name) != "firecracker" {
			left = append(left, item)
		}
	}
	changes.Added = left
	if !changes.Empty() {
		return fmt.Errorf("something is left:\n%s", changes)
	}
	fmt.Println("(empty)")
	return nil
}

func step(name string) { fmt.Printf("\n== %s\n", name) }
