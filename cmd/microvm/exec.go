//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/guest"
)

// execFlags are the flags of a guest command; exec and run share them.
type execFlags struct {
	env     []string
	dir     string
	user    string
	timeout time.Duration
	stdin   bool
	tty     bool
	detach  bool
	machine string // printed before the id of a command that is left; optional
}

func (f *execFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.SetInterspersed(false) // what follows the machine belongs to the command
	flags.StringArrayVarP(&f.env, "env", "e", nil, "NAME=VALUE, or NAME for the value that it has here, repeatable")
	flags.StringVarP(&f.dir, "workdir", "w", "", "working directory in the guest")
	flags.StringVarP(&f.user, "user", "u", "", "user in the guest, by name or UID[:GID]")
	flags.DurationVar(&f.timeout, "timeout", 0, "kill the command after this long")
	flags.BoolVarP(&f.stdin, "interactive", "i", false, "pass standard input on")
	flags.BoolVarP(&f.tty, "tty", "t", false, "give the command a terminal; with -i this one")
	flags.BoolVarP(&f.detach, "detach", "d", false, "only start the command, and print its id for attach")
}

func execCommand() *cobra.Command {
	var flags execFlags
	cmd := &cobra.Command{
		Use:   "exec [flags] VM COMMAND [ARG...]",
		Short: "Execute a command in a running machine; exit with its status",
		Args:  count(2, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := flags.check(); err != nil {
				return err
			}
			return vmVerb(func(ctx context.Context, vm *microvm.VM, args []string) error { return flags.run(ctx, vm, args) })(cmd, args)
		},
	}
	flags.add(cmd)
	return cmd
}

// check refuses what can't be, before a machine is asked.
func (f *execFlags) check() error {
	if f.detach && f.stdin {
		return usageError{errors.New("--detach and --interactive exclude each other")}
	}
	return nil
}

// run executes args in the guest, with this process's streams.
func (f *execFlags) run(ctx context.Context, vm *microvm.VM, args []string) error {
	if err := hasAgent(ctx, vm, "execute in"); err != nil {
		return err
	}
	c := guest.Command(vm, args[0], args[1:]...)
	c.Env = ownVariables(f.env)
	c.Dir, c.User, c.Timeout = f.dir, f.user, f.timeout
	if f.detach {
		return f.leave(ctx, c)
	}
	return f.stream(ctx, c)
}

// ownVariables gives those without a value the one that they have here; one that is not set here is left out.
func ownVariables(env []string) (pairs []string) {
	for _, text := range env {
		if value, ok := os.LookupEnv(text); ok && !strings.Contains(text, "=") {
			text += "=" + value
		}
		if strings.Contains(text, "=") {
			pairs = append(pairs, text)
		}
	}
	return pairs
}

// stream runs a command, or one that was attached to, with this process's streams.
func (f *execFlags) stream(ctx context.Context, c *guest.Cmd) error {
	c.Stdout, c.Stderr = os.Stdout, os.Stderr
	if f.stdin {
		c.Stdin = os.Stdin
	}
	if f.tty {
		return f.onTerminal(ctx, c)
	}
	return result(passSignals(ctx, c, nil))
}

// leave starts a command that nobody waits for.
func (f *execFlags) leave(ctx context.Context, c *guest.Cmd) error {
	if f.tty {
		c.TTY = &guest.TTY{Rows: defaultRows, Cols: defaultCols}
	}
	c.Detached = true
	if err := c.Start(ctx); err != nil {
		return err
	}
	fmt.Println(strings.TrimSpace(f.machine + " " + c.ID))
	return nil
}

// result makes the guest's status this process's.
func result(err error) error {
	if exit := (*guest.ExitError)(nil); errors.As(err, &exit) {
		if exit.Signal != 0 {
			return status(exitSignaled + exit.Signal) // as shells do
		}
		return status(exit.Code)
	}
	return err
}

// signalPatience is how long a command may take to end over a signal that was passed on to it, before it is killed.
const signalPatience = 10 * time.Second

// passSignals runs a command. The signal that ends ctx is passed on to it. Optionally something is begun when it has started, and ended with it.
func passSignals(ctx context.Context, c *guest.Cmd, begin func(context.Context) (end func())) error {
	running, kill := context.WithCancelCause(context.WithoutCancel(ctx))
	defer kill(nil)
	started := context.AfterFunc(ctx, func() { kill(context.Cause(ctx)) }) // until there is a command to pass a signal to
	err := c.Start(running)
	started()
	if err != nil {
		return err
	}
	if begin != nil {
		defer begin(running)()
	}
	stop := context.AfterFunc(ctx, func() {
		by := interrupted{}
		number, ok := syscall.SIGTERM, false
		if errors.As(context.Cause(ctx), &by) {
			number, ok = by.Signal.(syscall.Signal)
		}
		asking, cancel := context.WithTimeout(running, signalPatience)
		defer cancel()
		if !ok || c.Signal(asking, number) != nil {
			kill(context.Cause(ctx))
			return
		}
		<-asking.Done()
		kill(context.Cause(ctx))
	})
	defer stop()
	return c.Wait()
}

// hasAgent refuses a machine without an agent: nobody would ever answer.
func hasAgent(ctx context.Context, vm *microvm.VM, verb string) error {
	info, err := vm.Info(ctx)
	if err != nil {
		return err
	}
	if !info.Agent {
		return fmt.Errorf("%s %s: %w: it has no guest agent (create it with --image)", verb, info.Name, microvm.ErrUnsupported)
	}
	return nil
}
