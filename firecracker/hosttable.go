//go:build linux

package firecracker

import (
	"context"
	"errors"
	"io/fs"
	"net/netip"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/firewall"
	"github.com/tangle-network/microvm-runtime/internal/network"
	"github.com/tangle-network/microvm-runtime/internal/state"
	"github.com/tangle-network/microvm-runtime/internal/step"
)

// hostPresent says whether the host's table is as it should be. Others flush it: nft flush ruleset, reloads of Docker and firewalld.
func (d *driver) hostPresent(ctx context.Context) (present bool, err error) {
	err = d.withHostTable(ctx, func(host *firewall.Host) error {
		present, err = host.Present()
		return err
	})
	return present, err
}

// restoreHost makes the host's table again, with what machines publish, unless the network was removed.
func (d *driver) restoreHost(ctx context.Context) error {
	n, err := d.network(ctx)
	if err != nil {
		return err
	}
	if err := n.Restore(); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	return d.publishAll(ctx, n)
}

// publishAll publishes what machines have. It does not wait for those that are worked on: who calls may hold the lock of one. They are waited for behind.
func (d *driver) publishAll(ctx context.Context, n *network.Network) error {
	uids, err := d.state.UIDs()
	if err != nil {
		return err
	}
	late, err := d.publishEach(ctx, n, uids)
	if len(late) > 0 {
		d.calls.Go(func() { d.publishLate(n, late) })
	}
	return err
}

func (d *driver) publishLate(n *network.Network, late []string) {
	var err error
	for err == nil && len(late) > 0 && d.life.Err() == nil {
		late, err = d.publishEach(d.life, n, late)
	}
	d.warn("ports are not published again", err)
}

// publishEach publishes what the records of machines that run say, each under its lock: what was read without it may be of one that is destroyed or updated meanwhile, and what leads to
// a slot that was returned, or by an old policy, would stay. It returns those that are worked on.
func (d *driver) publishEach(ctx context.Context, n *network.Network, uids []string) (late []string, err error) {
	own, err := n.HostAddresses()
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, uid := range uids {
		if record, err := d.publisher(uid); record == nil || err != nil { // so that no lock is taken for nothing
			continue
		}
		waiting, cancel := context.WithTimeout(ctx, recoverPatience)
		lock, err := d.state.Lock(waiting, uid)
		cancel()
		switch {
		case errors.Is(err, microvm.ErrNotFound): // destroyed meanwhile
		case errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil:
			late = append(late, uid)
		case err != nil:
			errs = append(errs, err)
		default:
			errs = append(errs, d.publishOne(n, uid, own))
			lock.Unlock()
		}
	}
	return late, errors.Join(errs...)
}

// publishOne publishes what a machine has if it runs. Its lock is held.
func (d *driver) publishOne(n *network.Network, uid string, own []netip.Addr) error {
	record, err := d.publisher(uid)
	if record == nil || err != nil {
		return err
	}
	steps := step.Begin("host-table", d.options.hook)
	return steps.Do("publish", func() error {
		return n.WithFirewall(func(host *firewall.Host) error { return publishPorts(host, record, own) })
	}, nil)
}

// publisher returns the record of a machine that publishes: nil where it has no network or does not run.
func (d *driver) publisher(uid string) (*state.Record, error) {
	run, err := d.state.ReadRun(uid)
	if err != nil || run == nil || !run.Committed {
		return nil, err
	}
	record, err := d.state.ReadRecord(uid)
	if err != nil || !hasNetwork(&record.Spec) || record.Phase != state.PhaseCreated {
		return nil, err
	}
	return &record, nil
}

// withdraw ends what the host publishes to a machine, until it is started again.
func (d *driver) withdraw(ctx context.Context, record *state.Record) error {
	if !network.Made(d.networkPath()) || !record.Address.IsValid() {
		return nil
	}
	return d.withHostTable(ctx, func(host *firewall.Host) error { return host.Unpublish(record.Address) })
}

func (d *driver) withHostTable(ctx context.Context, f func(*firewall.Host) error) error {
	n, err := d.network(ctx)
	if err != nil {
		return err
	}
	return n.WithFirewall(f)
}

// keepHostTable makes the host's table again whenever somebody has removed it, as long as the driver lives. Without it machines reach nobody; they gain no way.
func (d *driver) keepHostTable(n *network.Network) {
	if n.HostWasMissing() { // Close does not cut this short: who opens the network next finds the table, and does not ask what is missing in it
		d.warn("ports are not published again", d.publishAll(context.Background(), n))
	}
	host, err := n.Firewall()
	if err != nil {
		d.warn("the host's table is not watched", err)
		return
	}
	defer host.Close()
	d.warn("the host's table is not watched", host.Watch(d.life, func() { d.warn("the host's table is gone", d.restoreHost(d.life)) }))
}
