//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/kernels"
	"github.com/tangle-network/microvm-runtime/internal/setup"
)

func setupCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "setup",
		Short: "Get Firecracker, a kernel and a Debian image into the cache, register the kernel; print the environment that uses them",
		Args:  count(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			parts, err := setup.Run(cmd.Context(), setup.Options{Progress: os.Stderr})
			if err != nil {
				return err
			}
			for _, pair := range [][2]string{
				{"MICROVM_FIRECRACKER_BIN", parts.Firecracker}, {"MICROVM_JAILER_BIN", parts.Jailer},
				{"MICROVM_FIRECRACKER_KERNEL", parts.Vmlinux}, {"MICROVM_KERNEL_MODULES", parts.Modules}, {"MICROVM_IMAGE", parts.Base},
			} {
				fmt.Printf("export %s=%s\n", pair[0], pair[1])
			}
			return registerKernel(cmd.Context(), parts)
		},
	}
}

// registerKernel keeps the kernel among those that machines may name, if it is not there yet.
func registerKernel(ctx context.Context, parts setup.Parts) error {
	dir, err := claimKernels()
	if err != nil {
		return err
	}
	k, err := dir.Import(ctx, "", kernels.Source{Image: parts.Vmlinux, Modules: parts.Modules})
	if errors.Is(err, microvm.ErrExists) {
		return nil
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "setup: machines may name the kernel %s\n", k.Name)
	return nil
}
