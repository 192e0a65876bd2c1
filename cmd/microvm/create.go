//go:build linux

package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	microvm "github.com/tangle-network/microvm-runtime"
)

func createCommand() *cobra.Command {
	var flags specFlags
	cmd := &cobra.Command{
		Use:   "create NAME [flags]",
		Short: "Create a machine without starting it; print its uid",
		Args:  count(1, 1),
		RunE: runtimeVerb(func(ctx context.Context, rt *microvm.Runtime, args []string) error {
			spec, err := flags.make()
			if err != nil {
				return err
			}
			vm, err := rt.Create(ctx, args[0], spec)
			if err != nil {
				return err
			}
			fmt.Println(vm.UID())
			return nil
		}),
	}
	flags.add(cmd.Flags())
	return cmd
}
