//go:build linux

package firecracker

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/tangle-network/microvm-runtime/internal/cgroup"
	"github.com/tangle-network/microvm-runtime/internal/guard"
	"github.com/tangle-network/microvm-runtime/internal/helper"
	"github.com/tangle-network/microvm-runtime/internal/network"
	"github.com/tangle-network/microvm-runtime/internal/pager"
	"github.com/tangle-network/microvm-runtime/internal/state"
)

// Helper serves, and never returns, where this process was started as a helper: by a driver, with this program. It must be the first call of a program's main. Otherwise it
// does nothing but note that this program can be its own helper.
//
// A machine whose policy has names needs one for each state directory, which answers them. It lives on when the driver is gone, and ends when no machine needs it. A machine whose memory comes
// page by page (microvm.MemoryUFFD) has one of its own, and with PagerEnd another that watches that one.
func Helper() { helper.Main(guard.Kind(), pager.Kind(nil), pager.WatchKind()) }

// helperLeaf makes the cgroup leaf of a helper, which must not end with its starter's. It is nil where the host has no cgroup v2.
func (d *driver) helperLeaf(name string) func() (*cgroup.Leaf, error) {
	if d.slice == nil {
		return nil
	}
	return func() (*cgroup.Leaf, error) { return d.slice.NewLeaf(name) }
}

const guardDir = "guard" // below the socket directory

func (d *driver) guardPath() string { return filepath.Join(d.options.SocketDir, guardDir) }

// setGuard tells the guard a machine's policy, and sees to it that one lives where the policy has names, or names are told.
func (d *driver) setGuard(ctx context.Context, n *network.Network, slot *network.Slot, record *state.Record) error {
	entry := guard.Entry{
		UID: record.UID, Address: slot.Addresses.Slot, Namespace: slot.Namespace, Rules: record.Rules, VerifySNI: record.Spec.Network.Egress.VerifySNI,
	}
	if !entry.Needed() && !d.options.TellNames {
		return d.leaveGuard(ctx, entry.Address)
	}
	if err := guard.Write(d.guardPath(), entry); err != nil {
		return err
	}
	if err := d.startGuard(ctx, n); err != nil {
		return fmt.Errorf("names: %w", err)
	}
	return guard.Client{Dir: d.guardPath()}.Sync(ctx, entry.Address)
}

func (d *driver) startGuard(ctx context.Context, n *network.Network) error {
	info := n.Info()
	setting := guard.Setting{Hub: n.HubPath(), Address: info.Hub, Subnet: info.Subnet, Nameservers: d.options.Nameservers}
	return guard.Start(ctx, d.guardPath(), d.options.HelperPath, d.helperLeaf(guardDir), setting)
}

// leaveGuard takes the machine of an address from the guard. One that lives must have heard it: it would open addresses for who has the slot next.
func (d *driver) leaveGuard(ctx context.Context, address netip.Addr) error {
	if err := guard.Remove(d.guardPath(), address); err != nil {
		return err
	}
	if _, err := os.Lstat(d.guardPath()); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	lives, err := guard.Lives(d.guardPath())
	if err != nil || !lives {
		return err
	}
	return guard.Client{Dir: d.guardPath()}.Sync(ctx, address)
}

// deniedNames are the names that were denied to a machine, and addresses that names have led to, and how often each. An error of the network says that no guard lives that knows them.
func (d *driver) deniedNames(ctx context.Context, record *state.Record) (map[string]uint64, error) {
	return guard.Client{Dir: d.guardPath()}.Denied(ctx, record.Address)
}

// removeGuard ends the guard. No machine may be left.
func (d *driver) removeGuard(ctx context.Context) error {
	if _, err := os.Lstat(d.guardPath()); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err := guard.Stop(ctx, d.guardPath()); err != nil {
		return err
	}
	if d.slice != nil {
		if leaf, err := d.slice.Leaf(guardDir); err == nil && leaf != nil {
			return errors.Join(leaf.Remove(), leaf.Close())
		}
	}
	return nil
}
