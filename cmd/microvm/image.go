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
	cmd := &cobra.Command{
		Use:   "image COMMAND",
		Short: "Get, make, list and remove images",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usageError{fmt.Errorf("usage: %s (see %s --help)", cmd.UseLine(), cmd.CommandPath())}
		},
	}
	cmd.AddCommand(imagePullCommand(), imageImportCommand(), imageBuildCommand(), imageListCommand(), imageInspectCommand(), imageRemoveCommand(), imagePruneCommand())
	return cmd
}

// imageVerb makes a command's function of a verb on the images of the environment's state directory.
func imageVerb(verb func(ctx context.Context, store *image.Store, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		options, err := firecracker.OptionsFromEnv(os.LookupEnv)
		if err != nil {
			return err
		}
		store, err := image.Open(filepath.Join(options.Defaults().StateDir, "images"))
		if err != nil {
			return err
		}
		return verb(cmd.Context(), store, args)
	}
}

// addImageVerb is imageVerb for a verb that adds to them: the state directory is there then, and known to be one. It takes no Firecracker.
func addImageVerb(verb func(ctx context.Context, store *image.Store, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		options, err := firecracker.OptionsFromEnv(os.LookupEnv)
		if err != nil {
			return err
		}
		if err := state.Claim(options.Defaults().StateDir); err != nil {
			return err
		}
		return imageVerb(verb)(cmd, args)
	}
}

func imageListCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "ls [flags]",
		Aliases: []string{"list"},
		Short:   "List images",
		Args:    count(0, 0),
		RunE: imageVerb(func(_ context.Context, store *image.Store, _ []string) error {
			images, err := store.List()
			if err != nil {
				fmt.Fprintln(os.Stderr, "microvm:", err) // the others are listed
			}
			if asJSON {
				return printJSON(images)
			}
			return printImages(images)
		}),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
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
