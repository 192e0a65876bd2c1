//go:build linux

package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"text/tabwriter"

	"github.com/spf13/cobra"

	microvm "github.com/tangle-network/microvm-runtime"
)

func statsCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "stats VM [flags]",
		Short: "Print what a machine's network has let through, dropped and denied",
		Args:  count(1, 1),
		RunE: vmVerb(func(ctx context.Context, vm *microvm.VM, _ []string) error {
			stats, err := vm.Stats(ctx)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(stats)
			}
			return printStats(os.Stdout, stats)
		}),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// printStats prints a table for each kind of what was counted.
func printStats(out io.Writer, stats microvm.Stats) error {
	if stats.Network == nil {
		_, err := fmt.Fprintln(out, "the machine has no network interface")
		return err
	}
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "RULE\tPACKETS\tBYTES")
	for _, rule := range stats.Network.Rules {
		fmt.Fprintf(w, "%s\t%d\t%d\n", rule.Rule, rule.Packets, rule.Bytes)
	}
	fmt.Fprintln(w, "\nDROPPED\tPACKETS\t")
	for _, reason := range slices.Sorted(maps.Keys(stats.Network.Drops)) {
		if packets := stats.Network.Drops[reason]; packets > 0 {
			fmt.Fprintf(w, "%s\t%d\t\n", reason, packets)
		}
	}
	fmt.Fprintln(w, "\nDENIED\tPACKETS\tOPENED BY")
	for _, flow := range stats.Network.Denied {
		fmt.Fprintf(w, "%s\t%d\t%s\n", deniedText(flow), flow.Packets, cmp.Or(flow.Opens().String(), "-"))
	}
	return w.Flush()
}
