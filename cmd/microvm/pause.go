//go:build linux

package main

import (
	"context"

	"github.com/spf13/cobra"

	microvm "github.com/tangle-network/microvm-runtime"
)

func pauseCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "pause VM",
		Short: "Hold a machine still; its memory stays",
		Args:  count(1, 1),
		RunE:  vmVerb(func(ctx context.Context, vm *microvm.VM, _ []string) error { return vm.Pause(ctx) }),
	}
}

func resumeCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "resume VM",
		Aliases: []string{"unpause"},
		Short:   "Let a paused machine go on",
		Args:    count(1, 1),
		RunE:    vmVerb(func(ctx context.Context, vm *microvm.VM, _ []string) error { return vm.Resume(ctx) }),
	}
}
