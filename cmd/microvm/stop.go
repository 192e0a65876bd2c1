//go:build linux

package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	microvm "github.com/tangle-network/microvm-runtime"
)

func stopCommand() *cobra.Command {
	var o microvm.StopOptions
	cmd := &cobra.Command{
		Use:   "stop VM [flags]",
		Short: "Power a machine off; print how its run ended",
		Args:  count(1, 1),
		RunE: vmVerb(func(ctx context.Context, vm *microvm.VM, _ []string) error {
			exit, err := vm.Stop(ctx, &o)
			if err != nil {
				return err
			}
			fmt.Println(exit)
			return nil
		}),
	}
	cmd.Flags().DurationVar(&o.Grace, "grace", 0, "how long each graceful step may take (default 5s)")
	cmd.Flags().BoolVarP(&o.Force, "force", "f", false, "kill the VMM at once")
	return cmd
}

// killCommand is stop --force by Docker's name.
func killCommand() *cobra.Command {
	cmd := stopCommand()
	cmd.Flags().Set("force", "true")
	cmd.Short = "End a machine at once; print how its run ended"
	return cmd
}
