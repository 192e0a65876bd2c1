//go:build linux

package network

import (
	"errors"
	"net/netip"
	"os"

	"github.com/tangle-network/microvm-runtime/internal/firewall"
	"github.com/tangle-network/microvm-runtime/internal/netns"
)

// rules are what package firewall does for this one.
type rules interface {
	slot(n *Network, ns *netns.Namespace, number int) error // all is denied, as in a new one
	hub(n *Network, ns *netns.Namespace) error
	host(n *Network) error
	unpublish(n *Network, slot netip.Addr) error
	remove(o Options) error
}

// Config returns what each config of a slot's rules has; who calls adds a policy, limits and ports.
func (n *Network) Config(number int) (firewall.Config, error) {
	address, err := n.plan.slot(number)
	return firewall.Config{Slot: address, Hub: n.plan.hub(), Subnet: n.plan.subnet, MTU: n.record.MTU}, err
}

// HostWasMissing says whether Open had to make the host's table: then nothing is published by it.
func (n *Network) HostWasMissing() bool { return n.hostWasMissing }

// Restore makes the host's table again. fs.ErrNotExist, and there is none, when the network was removed: who watches the table can't tell that from a flush. Remove removes what is
// made before its record is gone.
func (n *Network) Restore() error {
	if err := n.WithFirewall((*firewall.Host).Install); err != nil {
		return err
	}
	if _, err := os.Lstat(n.options.recordPath()); err != nil {
		return errors.Join(err, n.rules.remove(n.options))
	}
	return nil
}

// Firewall opens the host's table, where ports are published; who calls closes it.
func (n *Network) Firewall() (*firewall.Host, error) { return n.options.firewall(n.plan.subnet) }

func (o Options) firewall(subnet netip.Prefix) (host *firewall.Host, err error) {
	err = o.Host.Do(func() error { // so that nil is this process's, also on a thread that is elsewhere
		host, err = firewall.OpenHost(o.Host, firewall.HostConfig{ID: o.ID, Link: o.linkName(), Subnet: subnet})
		return err
	})
	return host, err
}

// installed are those of package firewall.
type installed struct{}

func (installed) slot(n *Network, ns *netns.Namespace, number int) error {
	config, err := n.Config(number)
	if err != nil {
		return err
	}
	s, err := firewall.OpenSlot(ns)
	if err != nil {
		return err
	}
	return errors.Join(s.Reset(config), s.Close())
}

func (installed) hub(n *Network, ns *netns.Namespace) error {
	return firewall.InstallHub(ns, firewall.HubConfig{Hub: n.plan.hub(), Subnet: n.plan.subnet})
}

func (installed) host(n *Network) error {
	return n.WithFirewall(func(h *firewall.Host) error {
		there, err := h.Present()
		if err != nil {
			return err
		}
		n.hostWasMissing = !there
		return h.Install()
	})
}

func (installed) unpublish(n *Network, slot netip.Addr) error {
	return n.WithFirewall(func(h *firewall.Host) error { return h.Unpublish(slot) })
}

func (installed) remove(o Options) error {
	h, err := o.firewall(candidates[0]) // which subnet it was doesn't matter any more
	if err != nil {
		return err
	}
	return errors.Join(h.Remove(), h.Close())
}

// WithFirewall calls a function with the host's table open.
func (n *Network) WithFirewall(f func(h *firewall.Host) error) error {
	h, err := n.Firewall()
	if err != nil {
		return err
	}
	return errors.Join(f(h), h.Close())
}
