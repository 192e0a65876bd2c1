//go:build linux

package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tangle-network/microvm-runtime/image"
)

func imagePullCommand() *cobra.Command {
	var o image.PullOptions
	cmd := &cobra.Command{
		Use:   "pull [flags] REFERENCE",
		Short: "Get an image from a registry, with Docker's credentials; print its digest",
		Args:  count(1, 1),
		RunE: addImageVerb(func(ctx context.Context, store *image.Store, args []string) error {
			return withProgress(func(progress func(image.Progress)) error {
				o.Progress = progress
				i, err := store.Pull(ctx, args[0], &o)
				return printDigest(i, err)
			})
		}),
	}
	cmd.Flags().StringVar(&o.Platform, "platform", "", "such as linux/arm64 (default this host's)")
	cmd.Flags().BoolVar(&o.Insecure, "insecure", false, "allow a registry without HTTPS")
	return cmd
}

// printDigest prints what scripts go on with.
func printDigest(i image.Image, err error) error {
	if err == nil {
		fmt.Println(i.Digest)
	}
	return err
}
