//go:build linux

package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	microvm "github.com/tangle-network/microvm-runtime"
)

func updateCommand() *cobra.Command {
	var f netFlags
	var disk string
	var closed bool
	cmd := &cobra.Command{
		Use:   "update VM [flags]",
		Short: "Change a machine's limits and published ports, at once where it runs",
		Args:  count(1, 1),
	}
	flags := cmd.Flags()
	flags.StringArrayVarP(&f.publish, "publish", "p", nil, publishUsage+"; in place of those that there are")
	flags.BoolVar(&closed, "publish-none", false, "publish no port any more")
	flags.StringVar(&f.receive, "receive-limit", "", "bps=N, iops=N, …: bound what the guest receives; bps=0: no bound")
	flags.StringVar(&f.transmit, "transmit-limit", "", "bound what the guest sends, as --receive-limit")
	flags.StringVar(&disk, "disk-limit", "", limitUsage+"; bps=0: no bound")
	cmd.RunE = vmVerb(func(ctx context.Context, vm *microvm.VM, _ []string) error {
		var change microvm.Change
		network, err := f.make()
		if err != nil {
			return err
		}
		if network != nil {
			change.Receive, change.Transmit = network.Receive, network.Transmit
		}
		if len(f.publish) > 0 || closed {
			ports := []microvm.Port{}
			if network != nil {
				ports = network.Publish
			}
			change.Publish = &ports
		}
		if disk != "" {
			if change.DiskLimit, err = parseLimit(disk); err != nil {
				return err
			}
		}
		if change.Publish == nil && change.Receive == nil && change.Transmit == nil && change.DiskLimit == nil {
			return usageError{errors.New("nothing to change: give a flag (microvm update --help)")}
		}
		return vm.Update(ctx, change)
	})
	return cmd
}
