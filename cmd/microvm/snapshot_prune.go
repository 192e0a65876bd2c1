//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	microvm "github.com/tangle-network/microvm-runtime"
)

func snapshotPruneCommand() *cobra.Command {
	var o microvm.PruneOptions
	cmd := &cobra.Command{
		Use:   "prune [flags]",
		Short: "Remove old snapshots, those beyond a number for each machine, or what is too much of the disk",
		Long: `Remove old snapshots, those beyond a number for each machine, or what is too much of the disk.

What a machine runs from, and what a snapshot that stays is over, stays.`,
		Args: count(0, 0),
	}
	verb := runtimeVerb(func(ctx context.Context, rt *microvm.Runtime, _ []string) error { return pruneSnapshots(ctx, rt, &o) })
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		said := false
		for flag, nothing := range map[string]bool{"keep": o.Keep < 1, "older-than": o.OlderThan <= 0, "max-mib": o.MaxMiB < 1} {
			if !cmd.Flags().Changed(flag) {
				continue
			}
			if said = true; nothing {
				return usageError{fmt.Errorf("--%s must be more than 0 (microvm snapshot rm removes what is named)", flag)}
			}
		}
		if !said {
			return usageError{errors.New("say what is to go: --keep, --older-than or --max-mib")}
		}
		return verb(cmd, args)
	}
	cmd.Flags().IntVar(&o.Keep, "keep", 0, "let this many of each machine's stay, the newest")
	cmd.Flags().Var(age{&o.OlderThan}, "older-than", "remove those that were taken longer ago, such as 30d or 12h")
	cmd.Flags().Var(mebibytes{&o.MaxMiB}, "max-mib", "remove the oldest until all have no more than this of the disk, in MiB or with a unit")
	cmd.Flags().BoolVar(&o.DryRun, "dry-run", false, "only print what would be removed")
	return cmd
}

func pruneSnapshots(ctx context.Context, rt *microvm.Runtime, o *microvm.PruneOptions) error {
	deleted, freed, err := rt.PruneSnapshots(ctx, o)
	removed, are := "removed", "are"
	if o.DryRun {
		removed, are = "would remove", "would be"
	}
	for _, info := range deleted {
		fmt.Println(removed, info.Name)
	}
	fmt.Printf("%d MiB %s free again\n", freed>>20, are)
	return err
}

// age is a flag's value: a duration, or a number of days.
type age struct{ d *time.Duration }

func (a age) String() string {
	if a.d == nil || *a.d == 0 {
		return ""
	}
	return a.d.String()
}

func (age) Type() string { return "duration" }

// Set parses 30d, and what Go's durations are.
func (a age) Set(text string) (err error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		const most = 100 * 365
		n, err := strconv.ParseUint(days, 10, 31)
		if err != nil || n > most {
			return fmt.Errorf("%q is no number of days", text)
		}
		*a.d = time.Duration(n) * 24 * time.Hour
		return nil
	}
	if *a.d, err = time.ParseDuration(text); err != nil {
		return fmt.Errorf("%q is no duration: such as 30d or 12h", text)
	}
	return nil
}
