//go:build linux

package main

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/tangle-network/microvm-runtime/firecracker"
)

func purgeCommand() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "purge --yes",
		Short: "Uninstall: destroy all machines and remove slots, jails, the cgroup slice and all state",
		Args:  count(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			options, err := firecracker.OptionsFromEnv(os.LookupEnv)
			if err != nil {
				return err
			}
			if !yes {
				d := options.Defaults()
				return usageError{fmt.Errorf("this destroys all machines and removes what is ours in %s, %s and %s: say --yes", d.StateDir, d.SocketDir, d.JailDir)}
			}
			return purge(cmd.Context(), options)
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do it")
	return cmd
}

func purge(ctx context.Context, options firecracker.Options) error {
	purged, err := firecracker.Purge(ctx, options)
	for _, name := range purged.Removed {
		fmt.Println("removed", name)
	}
	for _, path := range purged.Stays {
		fmt.Println("kept", path, "(not ours, or a mount point)")
	}
	return err
}
