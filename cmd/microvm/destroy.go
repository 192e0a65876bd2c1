//go:build linux

package main

import (
	"context"

	"github.com/spf13/cobra"

	microvm "github.com/tangle-network/microvm-runtime"
)

func destroyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "destroy VM...",
		Aliases: []string{"rm"},
		Short:   "End machines and remove all that they had",
		Args:    count(1, -1),
		RunE: runtimeVerb(func(ctx context.Context, rt *microvm.Runtime, args []string) error {
			return each(args, "", func(ref string) error {
				vm, err := rt.VM(ctx, ref)
				if err != nil {
					return err
				}
				return vm.Destroy(ctx)
			})
		}),
	}
	cmd.Flags().BoolP("force", "f", false, "nothing more than without it: a machine that runs is ended anyway")
	return cmd
}
