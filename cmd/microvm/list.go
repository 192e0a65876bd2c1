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
	return labelled("machines", func(ctx context.Context, rt *microvm.Runtime, labels map[string]string) ([]microvm.Info, error) {
		return rt.List(ctx, &microvm.Filter{Labels: labels})
	}, printTable)
}

// listing is a command that lists what there is of something, as a table or as JSON.
func listing[T any](what string, list func(cmd *cobra.Command) ([]T, error), table func([]T) error) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "ls [flags]",
		Aliases: []string{"list"},
		Short:   "List " + what,
		Args:    count(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, err := list(cmd)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(all)
			}
			return table(all)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// labelled is listing of what a runtime has, and what has labels.
func labelled[T any](what string, list func(ctx context.Context, rt *microvm.Runtime, labels map[string]string) ([]T, error), table func([]T) error) *cobra.Command {
	var labels []string
	cmd := listing(what, func(cmd *cobra.Command) (all []T, err error) {
		err = runtimeVerb(func(ctx context.Context, rt *microvm.Runtime, _ []string) error {
			wanted, err := pairs(labels)
			if err == nil {
				all, err = list(ctx, rt, wanted)
			}
			return err
		})(cmd, nil)
		return all, err
	}, table)
	cmd.Flags().StringArrayVarP(&labels, "label", "l", nil, "only "+what+" with KEY=VALUE, repeatable")
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
