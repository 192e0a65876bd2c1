//go:build linux

package main

import (
	"context"

	"github.com/spf13/cobra"

	microvm "github.com/tangle-network/microvm-runtime"
)

func inspectCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "inspect VM",
		Short: "Print all that is known of a machine as JSON",
		Args:  count(1, 1),
		RunE: vmVerb(func(ctx context.Context, vm *microvm.VM, _ []string) error {
			info, err := vm.Info(ctx)
			if err != nil {
				return err
			}
			return printJSON(info)
		}),
	}
}
