//go:build linux

package main

import (
	"context"
	"os"

	"github.com/spf13/cobra"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/firecracker"
)

// runtimeVerb makes a command's function of a verb on the runtime of the environment.
func runtimeVerb(verb func(ctx context.Context, rt *microvm.Runtime, args []string) error) func(*cobra.Command, []string) error {
	return runtimeVerbWith(func(o *firecracker.Options) { o.WaitingVMMs = 0 }, verb) // what waits for the next restore would end with the command
}

// runtimeVerbWith is runtimeVerb with a change of the options of the environment.
func runtimeVerbWith(change func(*firecracker.Options), verb func(ctx context.Context, rt *microvm.Runtime, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		options, err := firecracker.OptionsFromEnv(os.LookupEnv)
		if err != nil {
			return err
		}
		change(&options)
		rt, err := firecracker.New(options)
		if err != nil {
			return err
		}
		defer rt.Close()
		return verb(cmd.Context(), rt, args)
	}
}

// vmVerb makes a command's function of a verb on the machine that the first argument names.
func vmVerb(verb func(ctx context.Context, vm *microvm.VM, args []string) error) func(*cobra.Command, []string) error {
	return runtimeVerb(func(ctx context.Context, rt *microvm.Runtime, args []string) error {
		vm, err := rt.VM(ctx, args[0])
		if err != nil {
			return err
		}
		return verb(ctx, vm, args[1:])
	})
}
