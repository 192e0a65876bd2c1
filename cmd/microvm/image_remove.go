//go:build linux

package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tangle-network/microvm-runtime/image"
)

func imageRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "rm IMAGE...",
		Aliases: []string{"remove"},
		Short:   "Remove names, and images that have no other; machines that were made of them live on",
		Args:    count(1, -1),
		RunE: imageVerb(func(ctx context.Context, store *image.Store, args []string) error {
			return each(args, "removed", func(ref string) error { return store.Remove(ctx, ref) })
		}),
	}
}

func imagePruneCommand() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "prune [flags]",
		Short: "Remove images without a name that no machine uses, and unfinished downloads",
		Args:  count(0, 0),
		RunE: imageVerb(func(ctx context.Context, store *image.Store, _ []string) error {
			var keep func(image.Image) bool
			if all {
				keep = func(image.Image) bool { return false }
			}
			pruned, err := store.Prune(ctx, keep)
			for _, i := range pruned.Images {
				fmt.Println("removed", shortID(i.Digest))
			}
			fmt.Printf("%d MiB are free again\n", pruned.Bytes>>20)
			return err
		}),
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "also those with a name")
	return cmd
}
