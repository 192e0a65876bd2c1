//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	microvm "github.com/tangle-network/microvm-runtime"
)

// cleanUpPatience bounds the removal of the machine once the caller's own context may have ended.
const cleanUpPatience = 30 * time.Second

func runCommand() *cobra.Command {
	var spec specFlags
	var exec execFlags
	var name string
	var keep bool
	cmd := &cobra.Command{
		Use:   "run [flags] COMMAND [ARG...]",
		Short: "Create a machine, execute a command in it, destroy it; exit with the command's status",
		Args:  count(1, -1),
		RunE: runtimeVerb(func(ctx context.Context, rt *microvm.Runtime, args []string) (err error) {
			s, err := spec.make()
			if err != nil {
				return err
			}
			if name == "" {
				name = fmt.Sprintf("run-%s", strings.ReplaceAll(time.Now().UTC().Format("20060102-150405.000000"), ".", "-"))
			}
			vm, err := rt.Create(ctx, name, s)
			if err != nil {
				return err
			}
			if !keep {
				defer func() { err = errors.Join(err, destroyLate(ctx, vm)) }()
			}
			if err := hasAgent(ctx, vm); err != nil {
				return err
			}
			if err := vm.Start(ctx, nil); err != nil {
				return err
			}
			return exec.run(ctx, vm, args)
		}),
	}
	spec.add(cmd.Flags())
	exec.add(cmd)
	cmd.Flags().StringVar(&name, "name", "", "the machine's name (default run-TIME)")
	cmd.Flags().BoolVar(&keep, "keep", false, "leave the machine running")
	return cmd
}

// destroyLate destroys a machine also when ctx was interrupted.
func destroyLate(ctx context.Context, vm *microvm.VM) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUpPatience)
	defer cancel()
	return vm.Destroy(ctx)
}
