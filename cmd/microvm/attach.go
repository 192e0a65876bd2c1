//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/guest"
)

func attachCommand() *cobra.Command {
	var flags execFlags
	cmd := &cobra.Command{
		Use:   "attach [flags] VM ID",
		Short: "Go on with a command that somebody else started in a machine; exit with its status",
		Args:  count(2, 2),
		RunE: vmVerb(func(ctx context.Context, vm *microvm.VM, args []string) error {
			return flags.stream(ctx, guest.Attach(vm, args[0]))
		}),
	}
	cmd.Flags().BoolVarP(&flags.stdin, "interactive", "i", false, "pass standard input on")
	cmd.Flags().BoolVarP(&flags.tty, "tty", "t", false, "its terminal is, with -i, this one")
	return cmd
}

func processesCommand() *cobra.Command {
	var asJSON, all bool
	cmd := &cobra.Command{
		Use:   "ps [flags] [VM]",
		Short: "List the commands in a machine that the agent knows; without VM, the machines that run",
		Args:  count(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return runtimeVerb(func(ctx context.Context, rt *microvm.Runtime, _ []string) error {
					return listMachines(ctx, rt, all, asJSON)
				})(cmd, args)
			}
			return vmVerb(func(ctx context.Context, vm *microvm.VM, _ []string) error {
				processes, err := guest.List(ctx, vm)
				if err != nil {
					return err
				}
				if asJSON {
					return printJSON(processes)
				}
				return printProcesses(processes)
			})(cmd, args)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVarP(&all, "all", "a", false, "also machines that do not run")
	return cmd
}

// listMachines lists machines as docker ps does.
func listMachines(ctx context.Context, rt *microvm.Runtime, all, asJSON bool) error {
	infos, err := rt.List(ctx, nil)
	if err != nil {
		return err
	}
	infos = slices.DeleteFunc(infos, func(i microvm.Info) bool {
		return !all && i.State != microvm.StateRunning && i.State != microvm.StatePaused
	})
	if asJSON {
		return printJSON(infos)
	}
	return printTable(infos)
}

// printProcesses prints a line for each. What they are called is the guest's word, and so is quoted.
func printProcesses(processes []guest.Process) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tPID\tSTATE\tATTACHED\tCOMMAND")
	for _, p := range processes {
		attached, words := "", make([]string, len(p.Args))
		if p.Attached {
			attached = "yes"
		}
		for i, word := range p.Args {
			words[i] = fmt.Sprintf("%q", word)
		}
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\n", p.ID, p.PID, p.State, attached, strings.Join(words, " "))
	}
	return w.Flush()
}
