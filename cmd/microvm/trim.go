//go:build linux

package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	microvm "github.com/tangle-network/microvm-runtime"
)

func trimCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "trim VM",
		Short: "Give the host back what the file system on a stopped machine's own disk does not use; print how many bytes",
		Args:  count(1, 1),
		RunE: vmVerb(func(ctx context.Context, vm *microvm.VM, _ []string) error {
			freed, err := vm.Trim(ctx)
			if err == nil {
				fmt.Println(freed)
			}
			return err
		}),
	}
}
