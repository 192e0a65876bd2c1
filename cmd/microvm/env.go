//go:build linux

package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/guest"
)

func envCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "env VM KEY=VALUE...",
		Short: "Set variables of every command that starts in a running machine from now on; KEY= deletes one",
		Args:  count(2, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			set, err := variables(args[1:])
			if err != nil {
				return usageError{err}
			}
			return vmVerb(func(ctx context.Context, vm *microvm.VM, _ []string) error {
				if err := hasAgent(ctx, vm, "execute in"); err != nil {
					return err
				}
				return guest.SetEnv(ctx, vm, set)
			})(cmd, args)
		},
	}
}

// variables reads KEY=VALUE. What it refuses it does not print: a value may stand where a key should.
func variables(args []string) (map[string]string, error) {
	set := map[string]string{}
	for i, text := range args {
		key, value, ok := strings.Cut(text, "=")
		if !ok || key == "" {
			return nil, fmt.Errorf("variable %d must be KEY=VALUE", i+1)
		}
		if _, twice := set[key]; twice {
			return nil, fmt.Errorf("variable %s is given twice", key)
		}
		set[key] = value
	}
	return set, nil
}
