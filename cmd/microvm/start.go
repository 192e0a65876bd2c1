//go:build linux

package main

import (
	"context"

	"github.com/spf13/cobra"

	microvm "github.com/tangle-network/microvm-runtime"
)

func startCommand() *cobra.Command {
	var o microvm.StartOptions
	cmd := &cobra.Command{
		Use:   "start VM [flags]",
		Short: "Boot a machine and wait for its agent",
		Args:  count(1, 1),
		RunE: vmVerb(func(ctx context.Context, vm *microvm.VM, _ []string) error {
			return vm.Start(ctx, &o)
		}),
	}
	cmd.Flags().BoolVar(&o.NoWait, "no-wait", false, "don't wait for the agent")
	cmd.Flags().DurationVar(&o.AgentTimeout, "agent-timeout", 0, "how long to wait for the agent (default 1m)")
	return cmd
}
