//go:build linux

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	microvm "github.com/tangle-network/microvm-runtime"
)

func recoverCommand() *cobra.Command {
	var options microvm.RecoverOptions
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "recover",
		Aliases: []string{"gc"},
		Short:   "Finish and undo what was interrupted, give back what nobody has, and say what was done; exit with 1 when something could not be",
		Args:    count(0, 0),
		RunE: runtimeVerb(func(ctx context.Context, rt *microvm.Runtime, _ []string) error {
			report, err := rt.Recover(ctx, &options)
			if err := printRecovered(report, asJSON); err != nil {
				return err
			}
			if err == nil && len(report.Failed()) > 0 {
				return status(1)
			}
			return err
		}),
	}
	cmd.Flags().BoolVar(&options.DryRun, "dry-run", false, "change nothing: say what would be done")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printRecovered(report microvm.Report, asJSON bool) error {
	if asJSON {
		encoder := json.NewEncoder(os.Stdout)
		encoder.SetIndent("", "  ")
		return encoder.Encode(report)
	}
	for _, action := range report {
		problem := ""
		if action.Error != "" {
			problem = ": " + action.Error
		}
		if _, err := fmt.Printf("%s %s %s %s%s\n", action.Kind, dash(action.UID), dash(action.Name), action.What, problem); err != nil {
			return err
		}
	}
	return nil
}

// dash stands for what there is not, so that each line has as many fields.
func dash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}
