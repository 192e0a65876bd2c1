//go:build linux

package main

import (
	"context"

	"github.com/spf13/cobra"

	microvm "github.com/tangle-network/microvm-runtime"
)

func renameCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "rename VM NAME",
		Short: "Give a machine another name, in any state",
		Args:  count(2, 2),
		RunE:  vmVerb(func(ctx context.Context, vm *microvm.VM, args []string) error { return vm.Rename(ctx, args[0]) }),
	}
}
