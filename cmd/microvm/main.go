//go:build linux

// Command microvm creates, runs and ends microVMs from the shell. It stands on package firecracker and needs no daemon: every call opens the
// state directory that the environment names, so one call may create what another starts.
//
// # Caveats
//
// It exits with the guest command's status where there is one, 125 when the verb itself fails, and 2 for a wrong command line.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

const (
	exitUsage  = 2
	exitFailed = 125 // as docker and podman
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

// run executes one command line and returns the status to exit with.
func run(ctx context.Context, args []string) int {
	root := &cobra.Command{
		Use:           "microvm",
		Short:         "Run microVMs on Firecracker",
		Long:          "microvm creates, runs and ends microVMs on Firecracker.\n\nIt is configured by the environment: see `microvm doctor`, and package firecracker's documentation of OptionsFromEnv.",
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(createCommand(), startCommand(), execCommand(), runCommand(), stopCommand(), pauseCommand(), resumeCommand(),
		renameCommand(), trimCommand(), destroyCommand(), listCommand(), inspectCommand(), consoleCommand(), waitCommand(), eventsCommand(),
		doctorCommand(), kernelCommand(), purgeCommand(), setupCommand())
	root.SetArgs(args)
	return exitCode(root.ExecuteContext(ctx))
}

// status is a verb that worked and has a status of the guest's to exit with.
type status int

func (s status) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// usageError is a wrong command line.
type usageError struct{ error }

func exitCode(err error) int {
	if err == nil {
		return 0
	}
	if guest := status(0); errors.As(err, &guest) {
		return int(guest)
	}
	fmt.Fprintln(os.Stderr, "microvm:", err)
	if wrong := (usageError{}); errors.As(err, &wrong) {
		return exitUsage
	}
	return exitFailed
}

// count returns a check of the number of arguments.
func count(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < least || most >= 0 && len(args) > most {
			return usageError{fmt.Errorf("usage: %s", cmd.UseLine())}
		}
		return nil
	}
}
