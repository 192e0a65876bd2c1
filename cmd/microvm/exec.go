//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
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
}

func (f *execFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.SetInterspersed(false) // what follows the machine belongs to the command
	flags.StringArrayVarP(&f.env, "env", "e", nil, "NAME=VALUE, repeatable")
	flags.StringVarP(&f.dir, "workdir", "w", "", "working directory in the guest")
	flags.StringVarP(&f.user, "user", "u", "", "user in the guest, by name or UID[:GID]")
	flags.DurationVar(&f.timeout, "timeout", 0, "kill the command after this long")
	flags.BoolVarP(&f.stdin, "interactive", "i", false, "pass standard input on")
}

func execCommand() *cobra.Command {
	var flags execFlags
	cmd := &cobra.Command{
		Use:   "exec [flags] VM COMMAND [ARG...]",
		Short: "Execute a command in a running machine; exit with its status",
		Args:  count(2, -1),
		RunE: vmVerb(func(ctx context.Context, vm *microvm.VM, args []string) error {
			return flags.run(ctx, vm, args)
		}),
	}
	flags.add(cmd)
	return cmd
}

// run executes args in the guest, with this process's streams.
func (f *execFlags) run(ctx context.Context, vm *microvm.VM, args []string) error {
	if err := hasAgent(ctx, vm); err != nil {
		return err
	}
	c := guest.Command(vm, args[0], args[1:]...)
	c.Env, c.Dir, c.User, c.Timeout = f.env, f.dir, f.user, f.timeout
	c.Stdout, c.Stderr = os.Stdout, os.Stderr
	if f.stdin {
		c.Stdin = os.Stdin
	}
	err := c.Run(ctx)
	if exit := (*guest.ExitError)(nil); errors.As(err, &exit) {
		if exit.Signal != 0 {
			return status(128 + exit.Signal) // as shells do
		}
		return status(exit.Code)
	}
	return err
}

// hasAgent refuses a machine without an agent: nobody would ever answer.
func hasAgent(ctx context.Context, vm *microvm.VM) error {
	info, err := vm.Info(ctx)
	if err != nil {
		return err
	}
	if !info.Agent {
		return fmt.Errorf("execute in %s: %w: it has no guest agent (create it with --image)", info.Name, microvm.ErrUnsupported)
	}
	return nil
}
