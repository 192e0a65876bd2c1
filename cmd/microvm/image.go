//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/tangle-network/microvm-runtime/firecracker"
	"github.com/tangle-network/microvm-runtime/image"
	"github.com/tangle-network/microvm-runtime/internal/state"
)

func imageCommand() *cobra.Command {
	return group("image", "Get, make, list and remove images", imagePullCommand(), imageImportCommand(), imageBuildCommand(), imageListCommand(), imageInspectCommand(), imageRemoveCommand(), imagePruneCommand())
}

// withImages calls a function with the images of the environment's state directory. Who adds to them claims the directory first, so that it is there, and known to be one.
func withImages(add bool, do func(*image.Store) error) error {
	options, err := firecracker.OptionsFromEnv(os.LookupEnv)
	if err != nil {
		return err
	}
	dir := options.Defaults().StateDir
	if add {
		if err := state.Claim(dir); err != nil {
			return err
		}
	}
	store, err := image.Open(filepath.Join(dir, "images"))
	if err != nil {
		return err
	}
	return do(store)
}

// imageVerb makes a command's function of a verb on images. It takes no Firecracker.
func imageVerb(verb func(ctx context.Context, store *image.Store, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		return withImages(false, func(store *image.Store) error { return verb(cmd.Context(), store, args) })
	}
}

// addImageVerb is imageVerb for a verb that adds to them.
func addImageVerb(verb func(ctx context.Context, store *image.Store, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		return withImages(true, func(store *image.Store) error { return verb(cmd.Context(), store, args) })
	}
}

func imageListCommand() *cobra.Command {
	return listing("images", func(cmd *cobra.Command) (images []image.Image, err error) {
		err = imageVerb(func(_ context.Context, store *image.Store, _ []string) (err error) {
			if images, err = store.List(); err != nil {
				fmt.Fprintln(os.Stderr, "microvm:", err) // the others are listed
			}
			return nil
		})(cmd, nil)
		return images, err
	}, printImages)
}

// printImages prints a line for each name.
func printImages(images []image.Image) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "REFERENCE\tID\tPLATFORM\tCREATED\tMIB\tIN USE")
	for _, i := range images {
		references, used := i.References, ""
		if len(references) == 0 {
			references = []string{"<none>"}
		}
		if i.InUse {
			used = "yes"
		}
		for _, reference := range references {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%s\n", reference, shortID(i.Digest), i.Platform, i.Created.Local().Format(time.DateTime), (i.Size+1<<20-1)>>20, used)
		}
	}
	return w.Flush()
}

// shortID returns as much of a digest as people want to see; it is enough for all verbs.
func shortID(digest string) string { return digest[len("sha256:"):][:12] }

func imageInspectCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "inspect IMAGE",
		Short: "Print all that is known of an image as JSON",
		Args:  count(1, 1),
		RunE: imageVerb(func(_ context.Context, store *image.Store, args []string) error {
			i, err := store.Get(args[0])
			if err != nil {
				return err
			}
			return printJSON(i)
		}),
	}
}
