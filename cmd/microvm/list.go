//go:build linux

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	microvm "github.com/tangle-network/microvm-runtime"
)

func listCommand() *cobra.Command {
	var asJSON bool
	var labels []string
	cmd := &cobra.Command{
		Use:     "ls [flags]",
		Aliases: []string{"list"},
		Short:   "List machines",
		Args:    count(0, 0),
		RunE: runtimeVerb(func(ctx context.Context, rt *microvm.Runtime, _ []string) error {
			wanted, err := pairs(labels)
			if err != nil {
				return err
			}
			infos, err := rt.List(ctx, &microvm.Filter{Labels: wanted})
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(infos)
			}
			return printTable(infos)
		}),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().StringArrayVarP(&labels, "label", "l", nil, "only machines with KEY=VALUE, repeatable")
	return cmd
}

func printTable(infos []microvm.Info) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tUID\tSTATE\tVCPUS\tMIB\tPID\tSINCE\tEXIT")
	for _, info := range infos {
		since := info.Created
		if info.State == microvm.StateRunning || info.State == microvm.StatePaused {
			since = info.Started
		}
		exit, pid := "", ""
		if info.Exit != nil {
			exit = info.Exit.String()
			since = info.Exit.Time
		}
		if info.PID != 0 {
			pid = fmt.Sprint(info.PID)
		}
		if info.Problem != "" {
			exit = info.Problem
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%s\t%s\t%s\n", info.Name, info.UID, info.State, info.Spec.VCPUs, info.Spec.MemoryMiB, pid, since.Local().Format(time.DateTime), exit)
	}
	return w.Flush()
}

func printJSON(value any) error {
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetIndent("", "  ")
	return encoder.Encode(value)
}
