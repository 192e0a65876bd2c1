//go:build linux

package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	microvm "github.com/tangle-network/microvm-runtime"
)

func waitCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "wait VM",
		Short: "Wait for the end of a machine's run; print how it ended",
		Args:  count(1, 1),
		RunE: vmVerb(func(ctx context.Context, vm *microvm.VM, _ []string) error {
			exit, err := vm.Wait(ctx)
			if err != nil {
				return err
			}
			fmt.Println(exit)
			return nil
		}),
	}
}
