//go:build linux

// Command microvm creates, runs and ends microVMs from the shell. It stands on package firecracker and needs no daemon: every call opens the
// state directory that the environment names, so one call may create what another starts.
//
// # Caveats
//
// It exits with the guest command's status where there is one, 125 when the verb itself fails, 2 for a wrong command line, and 130 or 143 when SIGINT or SIGTERM ended
// the verb.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/tangle-network/microvm-runtime/firecracker"
)

func main() {
	firecracker.Helper()
	ctx, stop := untilSignal(context.Background(), os.Interrupt, syscall.SIGTERM)
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
		Args:          cobra.ArbitraryArgs, // of what is no command
		RunE:          noCommand,

		Version: version(),

		SuggestionsMinimumDistance: 2,
	}
	root.SetVersionTemplate("{{.Version}}\n")
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(createCommand(), startCommand(), execCommand(), copyCommand(), attachCommand(), processesCommand(), runCommand(),
		forwardCommand(), envCommand(), secretCommand(), stopCommand(), pauseCommand(), resumeCommand(), snapshotCommand(), restoreCommand(), forkCommand(), poolCommand(),
		renameCommand(), updateCommand(), policyCommand(), statsCommand(), trimCommand(), destroyCommand(), listCommand(), inspectCommand(), consoleCommand(), waitCommand(), eventsCommand(),
		doctorCommand(), recoverCommand(), kernelCommand(), imageCommand(), purgeCommand(), setupCommand())
	root.AddCommand(dockerNames()...)
	root.SetArgs(args)
	return exitCode(ctx, root.ExecuteContext(ctx))
}

// version returns which version of this module the program was made of.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		return fmt.Sprintf("microvm %s, %s", cmp.Or(info.Main.Version, "(devel)"), info.GoVersion)
	}
	return "microvm (devel)"
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  count(0, 0),
		RunE:  func(*cobra.Command, []string) error { _, err := fmt.Println(version()); return err },
	}
}

// dockerNames are verbs where Docker's users look for them. They are not listed: microvm image is the place to read of images.
func dockerNames() []*cobra.Command {
	named := map[string]*cobra.Command{
		"pull": imagePullCommand(), "images": imageListCommand(), "rmi": imageRemoveCommand(), "build": imageBuildCommand(), "load": imageImportCommand(),
		"kill": killCommand(), "version": versionCommand(),
	}
	var all []*cobra.Command
	for name, cmd := range named {
		_, arguments, _ := strings.Cut(cmd.Use, " ")
		cmd.Use, cmd.Aliases, cmd.Hidden = strings.TrimSpace(name+" "+arguments), nil, true
		all = append(all, cmd)
	}
	return all
}

// noCommand shows what there is, or refuses a command that there is not.
func noCommand(root *cobra.Command, args []string) error {
	if len(args) == 0 {
		return root.Help()
	}
	err := fmt.Errorf("unknown command %q (microvm --help lists what there is)", args[0])
	if similar := root.SuggestionsFor(args[0]); len(similar) > 0 {
		err = fmt.Errorf("unknown command %q (is it %s?)", args[0], strings.Join(similar, " or "))
	}
	return usageError{err}
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

// group is a command that is nothing but others.
func group(name, short string, others ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use:   name + " COMMAND",
		Short: short,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usageError{fmt.Errorf("usage: %s (see %s --help)", cmd.UseLine(), cmd.CommandPath())}
		},
	}
	cmd.AddCommand(others...)
	return cmd
}

// each does something to all that are named, also when one can't be, and says done of each where that is not empty.
func each(args []string, done string, do func(arg string) error) error {
	var errs []error
	for _, arg := range args {
		err := do(arg)
		if err == nil && done != "" {
			fmt.Println(done, arg)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
