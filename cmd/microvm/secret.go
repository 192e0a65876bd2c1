//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/guest"
)

func secretCommand() *cobra.Command {
	return group("secret", "Set, remove and list a running machine's secrets: files below /run/microvm/secrets, in its memory",
		&cobra.Command{
			Use:   "set VM NAME",
			Short: "Set a secret to what standard input has, to its last byte",
			Args:  count(2, 2),
			RunE: secretVerb(func(ctx context.Context, vm *microvm.VM, args []string) error {
				value, err := readSecret(os.Stdin)
				defer clear(value)
				if err != nil {
					return err
				}
				return guest.SetSecret(ctx, vm, args[0], value)
			}),
		},
		&cobra.Command{
			Use:     "rm VM NAME",
			Aliases: []string{"remove"},
			Short:   "Remove a secret",
			Args:    count(2, 2),
			RunE: secretVerb(func(ctx context.Context, vm *microvm.VM, args []string) error {
				return guest.DeleteSecret(ctx, vm, args[0])
			}),
		},
		&cobra.Command{
			Use:     "ls VM",
			Aliases: []string{"list"},
			Short:   "List the secrets' names",
			Args:    count(1, 1),
			RunE: secretVerb(func(ctx context.Context, vm *microvm.VM, _ []string) error {
				names, err := guest.ListSecrets(ctx, vm)
				for _, name := range names {
					fmt.Println(name)
				}
				return err
			}),
		},
	)
}

// secretVerb is vmVerb for a machine that has an agent.
func secretVerb(verb func(ctx context.Context, vm *microvm.VM, args []string) error) func(*cobra.Command, []string) error {
	return vmVerb(func(ctx context.Context, vm *microvm.VM, args []string) error {
		if err := hasAgent(ctx, vm, "execute in"); err != nil {
			return err
		}
		return verb(ctx, vm, args)
	})
}

// readSecret reads all of r, into one piece of memory: none is left behind as it grows.
func readSecret(r io.Reader) ([]byte, error) {
	const most = 64 << 10
	value := make([]byte, most+1)
	n, err := io.ReadFull(r, value)
	if err == nil {
		clear(value)
		return nil, fmt.Errorf("%w: a secret is at most 64 KiB", microvm.ErrInvalid)
	}
	if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		clear(value)
		return nil, err
	}
	return value[:n], nil
}
