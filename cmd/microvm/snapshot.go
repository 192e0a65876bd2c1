//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	microvm "github.com/tangle-network/microvm-runtime"
)

func snapshotCommand() *cobra.Command {
	return group("snapshot", "Write machines down; list, check, remove, export and import what was written",
		snapshotCreateCommand(), snapshotListCommand(), snapshotInspectCommand(),
		eachSnapshot("rm SNAPSHOT...", "Remove snapshots that no other, and no machine that runs, needs", "removed", (*microvm.Runtime).DeleteSnapshot),
		eachSnapshot("verify SNAPSHOT...", "Read all of snapshots, and compare it with what was written", "verified", (*microvm.Runtime).VerifySnapshot),
		eachSnapshot("flatten SNAPSHOT...", "Make snapshots need no other", "flattened", (*microvm.Runtime).FlattenSnapshot),
		snapshotExportCommand(), snapshotImportCommand(), snapshotPruneCommand(),
	)
}

func snapshotCreateCommand() *cobra.Command {
	var o microvm.SnapshotOptions
	var labels []string
	cmd := &cobra.Command{
		Use:   "create VM NAME [flags]",
		Short: "Write down what a running or paused machine is; it goes on",
		Args:  count(2, 2),
	}
	cmd.RunE = vmVerb(func(ctx context.Context, vm *microvm.VM, args []string) (err error) {
		if o.Labels, err = pairs(labels); err != nil {
			return err
		}
		info, err := vm.Snapshot(ctx, args[0], &o)
		if err != nil {
			return err
		}
		fmt.Println(info.Name)
		fmt.Fprintf(os.Stderr, "%s of %d MiB of memory, %d MiB of disk (%d copied); the guest stood for %v\n",
			info.Kind, info.MemoryBytes>>20, info.DiskBytes>>20, info.Copied>>20, info.Stood.Round(time.Millisecond))
		if info.Unfrozen != "" {
			fmt.Fprintln(os.Stderr, "microvm: what runs in the guest was not frozen:", info.Unfrozen)
		}
		return nil
	})
	cmd.Flags().BoolVar(&o.Diff, "diff", false, "only what was written since the snapshot before; needs create --track-dirty")
	cmd.Flags().StringArrayVarP(&labels, "label", "l", nil, "KEY=VALUE, repeatable")
	return cmd
}

func snapshotListCommand() *cobra.Command {
	return labelled("snapshots", func(ctx context.Context, rt *microvm.Runtime, labels map[string]string) ([]microvm.SnapshotInfo, error) {
		return rt.Snapshots(ctx, &microvm.SnapshotFilter{Labels: labels})
	}, printSnapshots)
}

func printSnapshots(infos []microvm.SnapshotInfo) error {
	names := map[string]string{}
	for _, info := range infos {
		names[info.UID] = info.Name
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tUID\tKIND\tOVER\tMEMORY MIB\tDISK MIB\tCREATED\tPROBLEM")
	for _, info := range infos {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%d\t%s\t%s\n",
			info.Name, info.UID, info.Kind, names[info.Parent], info.MemoryBytes>>20, info.DiskBytes>>20, info.Created.Local().Format(time.DateTime), info.Problem)
	}
	return w.Flush()
}

func snapshotInspectCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "inspect SNAPSHOT",
		Short: "Print all that is known of a snapshot as JSON",
		Args:  count(1, 1),
		RunE: runtimeVerb(func(ctx context.Context, rt *microvm.Runtime, args []string) error {
			info, err := rt.Snapshot(ctx, args[0])
			if err != nil {
				return err
			}
			return printJSON(info)
		}),
	}
}

// eachSnapshot is a command that does something to each snapshot that is named.
func eachSnapshot(use, short, done string, do func(rt *microvm.Runtime, ctx context.Context, ref string) error) *cobra.Command {
	return &cobra.Command{
		Use:   use,
		Short: short,
		Args:  count(1, -1),
		RunE: runtimeVerb(func(ctx context.Context, rt *microvm.Runtime, args []string) error {
			return each(args, done, func(ref string) error { return do(rt, ctx, ref) })
		}),
	}
}
