//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/firecracker"
	"github.com/tangle-network/microvm-runtime/guest"
)

func copyCommand() *cobra.Command {
	var archive bool
	var o guest.CopyOptions
	cmd := &cobra.Command{
		Use:   "cp [flags] SRC DST",
		Short: "Copy files between the host and a running machine: one side is VM:PATH, the other a path or - for a tar",
		Long: `Copy files between the host and a running machine.

One side is VM:PATH, the other a path of the host: one with a colon begins with / or ./. A destination that is a directory is where the copy goes to, under the source's
name; where nothing is, it is the copy's name. DIR/. as source is what is in the directory. With - as source a tar is read from standard input and unpacked into the
directory PATH; with - as destination a tar goes to standard output.`,
		Args: count(2, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			from, to := splitPlace(args[0]), splitPlace(args[1])
			if (from.vm == "") == (to.vm == "") {
				return usageError{fmt.Errorf("one of %q and %q must be VM:PATH", args[0], args[1])}
			}
			o.Owners, o.Setuid = archive, archive
			return copyFiles(cmd.Context(), from, to, &o)
		},
	}
	cmd.Flags().BoolVarP(&archive, "archive", "a", false, "keep numeric owners, and set-user-ID and set-group-ID bits")
	cmd.Flags().BoolVar(&o.Devices, "devices", false, "copy devices and named pipes, which are an error without it")
	cmd.Flags().BoolVarP(&o.Exact, "no-target-directory", "T", false, "DST is the copy's name also where it is a directory")
	cmd.Flags().BoolVar(&o.Resume, "resume", false, "leave out what an interrupted copy has made: files of the same size and time, up to the first that differs (with -T where DST is the copy's name)")
	cmd.Flags().Int64Var(&o.MaxBytes, "max-bytes", 0, "take no more from the machine (default 64 GiB)")
	return cmd
}

// sidePath is one side of a copy.
type sidePath struct {
	vm   string // empty for the host
	path string
}

// splitPlace splits VM:PATH. What has a slash before the colon is a path of the host.
func splitPlace(text string) sidePath {
	vm, path, ok := strings.Cut(text, ":")
	if !ok || vm == "" || strings.ContainsRune(vm, '/') {
		return sidePath{path: text}
	}
	return sidePath{vm: vm, path: path}
}

func copyFiles(ctx context.Context, from, to sidePath, o *guest.CopyOptions) (err error) {
	rt, err := firecracker.FromEnv()
	if err != nil {
		return err
	}
	defer rt.Close()
	vm, err := rt.VM(ctx, from.vm+to.vm)
	if err != nil {
		return err
	}
	if err := hasAgent(ctx, vm, "copy files of"); err != nil {
		return err
	}
	switch {
	case from.path == "-" && from.vm == "":
		return guest.WriteTar(ctx, vm, to.path, os.Stdin, o)
	case to.path == "-" && to.vm == "":
		return writeTar(ctx, vm, from.path)
	case from.vm == "":
		return guest.CopyTo(ctx, vm, from.path, to.path, o)
	}
	return guest.CopyFrom(ctx, vm, from.path, to.path, o)
}

// writeTar writes a tar to standard output.
func writeTar(ctx context.Context, vm *microvm.VM, path string) error {
	r, err := guest.ReadTar(ctx, vm, path)
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.Copy(os.Stdout, r)
	return err
}
