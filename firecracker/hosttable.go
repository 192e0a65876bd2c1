//go:build linux

package firecracker

import (
	"context"
	"errors"

	"github.com/tangle-network/microvm-runtime/internal/firewall"
	"github.com/tangle-network/microvm-runtime/internal/network"
	"github.com/tangle-network/microvm-runtime/internal/state"
)

// hostPresent says whether the host's table is as it should be. Others flush it: nft flush ruleset, reloads of Docker and firewalld.
func (d *driver) hostPresent(ctx context.Context) (present bool, err error) {
	err = d.withHostTable(ctx, func(_ *network.Network, host *firewall.Host) error {
		present, err = host.Present()
		return err
	})
	return present, err
}

// restoreHost makes the host's table again, with all that is published.
func (d *driver) restoreHost(ctx context.Context) error {
	return d.withHostTable(ctx, func(n *network.Network, host *firewall.Host) error {
		if err := host.Install(); err != nil {
			return err
		}
		return d.publishRecorded(n, host)
	})
}

// publishAll publishes what machines have, by a host's table that is new.
func (d *driver) publishAll(n *network.Network) error {
	return n.WithFirewall(func(host *firewall.Host) error { return d.publishRecorded(n, host) })
}

// publishRecorded publishes what the records of all machines say.
func (d *driver) publishRecorded(n *network.Network, host *firewall.Host) error {
	uids, err := d.state.UIDs()
	if err != nil {
		return err
	}
	own, err := n.HostAddresses()
	if err != nil {
		return err
	}
	var errs []error
	for _, uid := range uids {
		record, err := d.state.ReadRecord(uid)
		if err != nil || !hasNetwork(&record.Spec) || record.Phase != state.PhaseCreated {
			continue
		}
		errs = append(errs, publishPorts(host, &record, own))
	}
	return errors.Join(errs...)
}

// withdraw ends what the host publishes to a machine, until it is started again.
func (d *driver) withdraw(ctx context.Context, record *state.Record) error {
	if !d.networkIsMade() || !record.Address.IsValid() {
		return nil
	}
	return d.withHostTable(ctx, func(_ *network.Network, host *firewall.Host) error { return host.Unpublish(record.Address) })
}

func (d *driver) withHostTable(ctx context.Context, f func(*network.Network, *firewall.Host) error) error {
	n, err := d.network(ctx)
	if err != nil {
		return err
	}
	return n.WithFirewall(func(host *firewall.Host) error { return f(n, host) })
}

// keepHostTable makes the host's table again whenever somebody has removed it, as long as the driver lives. Without it machines reach nobody; they gain no way.
func (d *driver) keepHostTable(n *network.Network) {
	host, err := n.Firewall()
	if err != nil {
		d.log.Warn("the host's table is not watched", "error", err)
		return
	}
	defer host.Close()
	err = host.Watch(d.life, func() {
		if err := d.restoreHost(d.life); err != nil && d.life.Err() == nil {
			d.log.Warn("the host's table is gone", "error", err)
		}
	})
	if err != nil && d.life.Err() == nil {
		d.log.Warn("the host's table is not watched", "error", err)
	}
}
