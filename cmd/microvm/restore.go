//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	microvm "github.com/tangle-network/microvm-runtime"
)

// restoreFlags are the flags that make RestoreOptions; restore and fork share them.
type restoreFlags struct {
	options     microvm.RestoreOptions
	labels, env []string
	evidence    bool
}

func (f *restoreFlags) add(flags *pflag.FlagSet) {
	flags.BoolVar(&f.options.Paused, "paused", false, "leave the machine paused, once it is its own")
	flags.StringVar((*string)(&f.options.Backend), "backend", "", "where the memory comes from: file, or uffd, page by page by a helper")
	flags.StringArrayVarP(&f.env, "env", "e", nil, "NAME=VALUE of every command in it, repeatable")
	flags.StringArrayVarP(&f.labels, "label", "l", nil, "KEY=VALUE in place of the snapshot's machine's, repeatable")
	flags.BoolVar(&f.evidence, "evidence", false, "print what was done to make the machine its own as JSON")
}

func (f *restoreFlags) make() (*microvm.RestoreOptions, error) {
	o := f.options
	var labels, env error
	o.Labels, labels = pairs(f.labels)
	o.Env, env = pairs(f.env)
	return &o, errors.Join(labels, env)
}

func restoreCommand() *cobra.Command {
	var f restoreFlags
	cmd := &cobra.Command{
		Use:   "restore SNAPSHOT NAME [flags]",
		Short: "Make a machine that goes on where a snapshot was taken",
		Args:  count(2, 2),
		RunE: runtimeVerb(func(ctx context.Context, rt *microvm.Runtime, args []string) error {
			o, err := f.make()
			if err != nil {
				return err
			}
			vm, evidence, err := rt.Restore(ctx, args[0], args[1], o)
			if err != nil {
				return err
			}
			tellCopied(ctx, vm)
			if f.evidence {
				return printJSON(evidence)
			}
			fmt.Println(vm.UID())
			return nil
		}),
	}
	f.add(cmd.Flags())
	cmd.Flags().StringVar(&f.options.Hostname, "hostname", "", "of the guest; otherwise the machine's name")
	return cmd
}

func forkCommand() *cobra.Command {
	var f restoreFlags
	cmd := &cobra.Command{
		Use:   "fork SNAPSHOT|VM NAME... [flags]",
		Short: "Make machines that go on where a snapshot was taken, or where a machine is now",
		Args:  count(2, -1),
		RunE: runtimeVerb(func(ctx context.Context, rt *microvm.Runtime, args []string) error {
			o, err := f.make()
			if err != nil {
				return err
			}
			forked, err := fork(ctx, rt, args[0], args[1:], o)
			if err != nil {
				return err
			}
			var made []*microvm.VM
			for _, one := range forked {
				if one.VM != nil {
					made = append(made, one.VM)
				}
			}
			tellCopied(ctx, made...)
			return printForked(forked, f.evidence)
		}),
	}
	f.add(cmd.Flags())
	cmd.Flags().IntVar(&f.options.Parallel, "parallel", 0, "how many are restored at a time; otherwise 8")
	return cmd
}

// tellCopied says what the disks of machines have cost, where that is not nothing.
func tellCopied(ctx context.Context, vms ...*microvm.VM) {
	var copied int64
	for _, vm := range vms {
		if info, err := vm.Info(ctx); err == nil {
			copied += info.Copied
		}
	}
	if copied > 0 {
		fmt.Fprintf(os.Stderr, "microvm: %d MiB of disk were copied, since the file system can't share blocks (see microvm doctor)\n", copied>>20)
	}
}

// fork forks a snapshot, whose name has a slash, or a machine.
func fork(ctx context.Context, rt *microvm.Runtime, ref string, names []string, o *microvm.RestoreOptions) ([]microvm.Forked, error) {
	if strings.Contains(ref, "/") {
		return rt.Fork(ctx, ref, names, o)
	}
	vm, err := rt.VM(ctx, ref)
	if errors.Is(err, microvm.ErrNotFound) {
		return rt.Fork(ctx, ref, names, o) // a snapshot's uid
	}
	if err != nil {
		return nil, err
	}
	return vm.Fork(ctx, names, o)
}

// printForked prints the machines that could be made; the error is of the others.
func printForked(forked []microvm.Forked, evidence bool) error {
	var errs []error
	for _, f := range forked {
		if f.Err != nil {
			errs = append(errs, f.Err)
			continue
		}
		fmt.Println(f.VM.UID(), f.Name)
		if evidence {
			errs = append(errs, printJSON(f.Evidence))
		}
	}
	if len(errs) > 0 {
		fmt.Fprintf(os.Stderr, "microvm: %d of %d machines could not be made\n", len(errs), len(forked))
	}
	return errors.Join(errs...)
}
