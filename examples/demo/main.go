//go:build linux

// Command demo shows a machine's whole life: it creates a jailed microVM, starts it, executes commands in it, stops it, starts it again and destroys it, and shows what
// that left on the host. It takes its parts from the environment; see firecracker.OptionsFromEnv.
package main

import (
	"bytes"
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
	"syscall"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/firecracker"
	"github.com/tangle-network/microvm-runtime/guest"
)

func main() {
	nonce := flag.String("nonce", rand.Text(), "text whose sha256 the guest computes")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
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
	options.StateDir, options.SocketDir, options.Slice = filepath.Join(dir, "state"), filepath.Join(dir, "run"), "/"+filepath.Base(dir)+".slice"
	h, err := lookAt(dir, options.Slice)
	if err != nil {
		return err
	}
	rt, err := firecracker.New(options)
	if err != nil {
		return err
	}
	uid, err := life(ctx, rt, nonce, h)
	if err := errors.Join(err, rt.Close()); err != nil {
		return err
	}
	step("the host afterwards: what the machine had is gone")
	if err := h.machineGone(uid); err != nil {
		return err
	}
	step("purge")
	if _, err := firecracker.Purge(ctx, options); err != nil {
		return err
	}
	step("the host after that, all of it, against what it was before")
	return h.asBefore()
}

// life is the demo proper.
func life(ctx context.Context, rt *microvm.Runtime, nonce string, h *host) (uid string, err error) {
	step("create")
	vm, err := rt.Create(ctx, "demo", microvm.Spec{})
	if err != nil {
		return "", err
	}
	defer vm.Destroy(context.WithoutCancel(ctx)) // after a failure; a second Destroy finds nothing

	step("start")
	if err := start(ctx, vm); err != nil {
		return "", err
	}
	step("the host while it runs")
	if err := h.print(); err != nil {
		return "", err
	}
	step("execute")
	if err := commands(ctx, vm, nonce); err != nil {
		return "", err
	}
	return vm.UID(), rest(ctx, rt, vm)
}

// rest is a machine's life after its work.
func rest(ctx context.Context, rt *microvm.Runtime, vm *microvm.VM) error {
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

// show executes a command and prints what it wrote, each stream as it comes, with its name before each line.
func show(ctx context.Context, vm *microvm.VM, args ...string) error {
	fmt.Println("$", strings.Join(args, " "))
	stdout, stderr := &lines{name: "stdout"}, &lines{name: "stderr"}
	cmd := guest.Command(vm, args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	err := cmd.Run(ctx)
	stdout.end()
	stderr.end()
	return err
}

// lines prints lines with a name before each.
type lines struct {
	name string
	rest []byte // A line that has not ended.
}

func (l *lines) Write(p []byte) (int, error) {
	l.rest = append(l.rest, p...)
	for {
		line, rest, ended := bytes.Cut(l.rest, []byte("\n"))
		if !ended {
			return len(p), nil
		}
		fmt.Printf("%s | %s\n", l.name, line)
		l.rest = rest
	}
}

// end prints a last line that has no end.
func (l *lines) end() {
	if len(l.rest) > 0 {
		fmt.Printf("%s | %s\n", l.name, l.rest)
	}
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

func step(name string) { fmt.Printf("\n== %s\n", name) }
