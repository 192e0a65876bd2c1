//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	microvm "github.com/tangle-network/microvm-runtime"
)

func snapshotExportCommand() *cobra.Command {
	var output, key string
	cmd := &cobra.Command{
		Use:   "export SNAPSHOT [flags]",
		Short: "Write a snapshot, with all that a restore on another host needs, to a file or standard output",
		Long: `Write a snapshot, with all that a restore on another host needs, to a file or standard output.

What was in the machine's memory is in it, secrets too. It is signed with --key: openssl genpkey -algorithm ed25519 -out KEY makes one, and
openssl pkey -in KEY -pubout -out KEY.pub what the import is to trust.`,
		Args: count(1, 1),
		RunE: runtimeVerb(func(ctx context.Context, rt *microvm.Runtime, args []string) (err error) {
			var o microvm.ExportOptions
			if key != "" {
				if o.Key, err = readPrivateKey(key); err != nil {
					return err
				}
			}
			return toOutput(ctx, output, func(w io.Writer) error { return rt.ExportSnapshot(ctx, args[0], w, &o) })
		}),
	}
	cmd.Flags().StringVarP(&output, "output", "o", "-", "file to write, which is replaced once all is written; - for standard output")
	cmd.Flags().StringVar(&key, "key", "", "file with the ed25519 private key to sign with, PKCS#8 in PEM")
	return cmd
}

// toOutput calls write with standard output, for -, or a file. A file appears, with mode 0600, when all is written.
func toOutput(ctx context.Context, path string, write func(io.Writer) error) error {
	if path == "-" {
		if term.IsTerminal(int(os.Stdout.Fd())) {
			return usageError{errors.New("standard output is a terminal: say -o FILE, or redirect it")}
		}
		return write(unlessEnded{ctx, os.Stdout})
	}
	info, err := os.Stat(path)
	switch {
	case err == nil && info.IsDir():
		return fmt.Errorf("%w: %s is a directory", microvm.ErrInvalid, path)
	case err == nil && !info.Mode().IsRegular(): // a pipe, a device
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		return errors.Join(write(unlessEnded{ctx, f}), f.Close())
	case err == nil: // what a link leads to is replaced, not the link
		if path, err = filepath.EvalSymlinks(path); err != nil {
			return err
		}
	}
	return replaceFile(path, write)
}

// replaceFile puts what is written in a file's place, or leaves what was there.
func replaceFile(path string, write func(io.Writer) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-")
	if err != nil {
		return err
	}
	err = write(f)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// unlessEnded is a pipe or a terminal that is left when ctx ends, whoever it waits for: the process ends soon.
type unlessEnded struct {
	ctx context.Context
	f   *os.File
}

func (u unlessEnded) Read(p []byte) (int, error)  { return u.do(u.f.Read, p) }
func (u unlessEnded) Write(p []byte) (int, error) { return u.do(u.f.Write, p) }

func (u unlessEnded) do(call func([]byte) (int, error), p []byte) (n int, err error) {
	done := make(chan struct{})
	var got int
	var failed error
	go func() {
		got, failed = call(p)
		close(done)
	}()
	select {
	case <-done:
		return got, failed
	case <-u.ctx.Done():
		return 0, context.Cause(u.ctx)
	}
}

func snapshotImportCommand() *cobra.Command {
	var trust []string
	var o microvm.ImportOptions
	cmd := &cobra.Command{
		Use:   "import FILE [MACHINE/NAME] [flags]",
		Short: "Make a snapshot of what export has written; - for standard input",
		Long: `Make a snapshot of what export has written; - for standard input. It has the name that it had unless another is given.

It must be signed with one of the keys that --trust names. A snapshot is input to the VMM, and decides what its machines are: say --unsigned only where
you know who has made it.`,
		Args: count(1, 2),
	}
	cmd.RunE = runtimeVerb(func(ctx context.Context, rt *microvm.Runtime, args []string) error {
		if (len(trust) > 0) == o.Unsigned {
			return usageError{errors.New("say whose exports to take: --trust FILE with a public key, or --unsigned for anybody's")}
		}
		for _, path := range trust {
			keys, err := readPublicKeys(path)
			if err != nil {
				return err
			}
			o.Trusted = append(o.Trusted, keys...)
		}
		name := ""
		if len(args) == 2 {
			name = args[1]
		}
		return fromInput(ctx, args[0], func(r io.Reader) error { return importSnapshot(ctx, rt, name, r, &o) })
	})
	cmd.Flags().StringArrayVar(&trust, "trust", nil, "file with the ed25519 public keys, in PEM, that it may be signed with; repeatable")
	cmd.Flags().BoolVar(&o.Unsigned, "unsigned", false, "take it, whoever has made it")
	return cmd
}

func importSnapshot(ctx context.Context, rt *microvm.Runtime, name string, r io.Reader, o *microvm.ImportOptions) error {
	info, err := rt.ImportSnapshot(ctx, name, r, o)
	if err != nil {
		return err
	}
	fmt.Println(info.Name)
	if info.Problem != "" {
		fmt.Fprintln(os.Stderr, "microvm: it can't be restored here:", info.Problem)
	}
	return nil
}

// fromInput calls read with standard input, for -, or a file.
func fromInput(ctx context.Context, path string, read func(io.Reader) error) error {
	f := os.Stdin
	if path != "-" {
		var err error
		if f, err = os.Open(path); err != nil {
			return err
		}
		defer f.Close()
	} else if term.IsTerminal(int(f.Fd())) {
		return usageError{errors.New("standard input is a terminal: say FILE, or redirect it")}
	}
	return read(unlessEnded{ctx, f})
}
