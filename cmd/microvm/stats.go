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
		Short: "Print what a machine's network has let through, dropped and denied, and how its memory is served",
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
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	if stats.Network == nil {
		fmt.Fprintln(w, "the machine has no network interface")
	} else {
		printNetwork(w, stats.Network)
	}
	if m := stats.Memory; m != nil {
		fmt.Fprintln(w, "\nMEMORY\tPAGES\t")
		for _, row := range []struct {
			what  string
			pages uint64
		}{{"all", uint64(m.Pages)}, {"waited for", m.Faults}, {"copied then", m.Copied}, {"prefetched", m.Prefetched}, {"given up", m.Removed}, {"asked for again", m.Zeroed}} {
			fmt.Fprintf(w, "%s\t%d\t\n", row.what, row.pages)
		}
		fmt.Fprintf(w, "\nWAIT\tTIME\t\np50\t%v\t\np99\t%v\t\nworking set\t%v\t\n", m.P50, m.P99, m.Prefetch)
	}
	return w.Flush()
}

func printNetwork(w io.Writer, stats *microvm.NetworkStats) {
	fmt.Fprintln(w, "RULE\tPACKETS\tBYTES")
	for _, rule := range stats.Rules {
		fmt.Fprintf(w, "%s\t%d\t%d\n", rule.Rule, rule.Packets, rule.Bytes)
	}
	fmt.Fprintln(w, "\nDROPPED\tPACKETS\t")
	for _, reason := range slices.Sorted(maps.Keys(stats.Drops)) {
		if packets := stats.Drops[reason]; packets > 0 {
			fmt.Fprintf(w, "%s\t%d\t\n", reason, packets)
		}
	}
	fmt.Fprintln(w, "\nDENIED\tPACKETS\tOPENED BY")
	for _, flow := range stats.Denied {
		fmt.Fprintf(w, "%s\t%d\t%s\n", deniedText(flow), flow.Packets, cmp.Or(flow.Opens().String(), "-"))
	}
}
