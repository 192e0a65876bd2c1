//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/tangle-network/microvm-runtime/doctor"
	"github.com/tangle-network/microvm-runtime/firecracker"
)

func doctorCommand() *cobra.Command {
	var asJSON, fix bool
	var storeMiB int
	cmd := &cobra.Command{
		Use:   "doctor [flags]",
		Short: "Say whether this host can run machines, and what to do where it can't; exit with 1 when it can't",
		Args:  count(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			options, err := firecracker.OptionsFromEnv(os.LookupEnv)
			if err != nil {
				return err
			}
			if storeMiB != 0 && !fix {
				return usageError{errors.New("--store-size is of what --fix makes")}
			}
			o := doctor.Options{Driver: options, StoreMiB: storeMiB}
			var report doctor.Report
			if fix {
				report = doctor.Fix(cmd.Context(), o)
			}
			report = append(report, doctor.Run(cmd.Context(), o)...)
			if asJSON {
				err = printJSON(report)
			} else {
				err = printReport(report)
			}
			if err == nil && !report.Healthy() {
				return status(1)
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&fix, "fix", false, "make an xfs in a file, and mount it at the state directory, where that is empty and forks would copy disks")
	cmd.Flags().Var(mebibytes{&storeMiB}, "store-size", "with --fix: the file's size, as 64g (default: a half of what is free)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printReport(report doctor.Report) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	for _, finding := range report {
		fmt.Fprintf(w, "%s\t%s\t%s\n", finding.Severity, finding.Check, finding.Evidence)
		if finding.Remedy != "" {
			fmt.Fprintf(w, "\t\t→ %s\n", finding.Remedy)
		}
	}
	return w.Flush()
}
