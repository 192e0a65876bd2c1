//go:build linux

package main

import (
	"context"
	"errors"
	"io"
	"os"

	"github.com/spf13/cobra"

	microvm "github.com/tangle-network/microvm-runtime"
)

func consoleCommand() *cobra.Command {
	var o microvm.ConsoleOptions
	cmd := &cobra.Command{
		Use:     "console VM [flags]",
		Aliases: []string{"logs"},
		Short:   "Print what the guest wrote to its serial console",
		Args:    count(1, 1),
		RunE: vmVerb(func(ctx context.Context, vm *microvm.VM, _ []string) error {
			r, err := vm.Console(ctx, &o)
			if err != nil {
				return err
			}
			defer r.Close()
			_, err = io.Copy(os.Stdout, r)
			if errors.Is(err, context.Canceled) {
				return nil
			}
			return err
		}),
	}
	cmd.Flags().BoolVarP(&o.Follow, "follow", "f", false, "go on until the run ends")
	cmd.Flags().IntVarP(&o.Tail, "tail", "n", 0, "begin at most this many bytes before the end (default all)")
	return cmd
}
