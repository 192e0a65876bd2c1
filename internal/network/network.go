//go:build linux

package network

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"regexp"

	"github.com/vishvananda/netlink"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/flock"
	"github.com/tangle-network/microvm-runtime/internal/netns"
	"github.com/tangle-network/microvm-runtime/internal/step"
)

// Options say which network. The same must be given to each Open of it, and to Remove.
type Options struct {
	Dir string // Where its files are: below the socket directory, on a file system in memory.
	ID  string // 8 hexadecimal digits that tell the state directory's things on the host from others'.

	Subnet netip.Prefix     // IPv4, /8 to /28. Optional: a /18 that the host has no use for, as long as the network lives.
	Uplink string           // The link that leads out. Optional: the one of the default route.
	MTU    int              // 576 to 65521, in bytes. Optional: the uplink's.
	Host   *netns.Namespace // What is regarded as the host; it must stay open. Optional: the one that this process is in.
	Hook   step.Hook        // Optional.

	rules rules // Nil: those of package firewall.
}

// Network is what a state directory has on the host. Its methods may be called at the same time, and by any number of processes.
type Network struct {
	options Options
	record  record
	plan    plan
	rules   rules

	hostWasMissing bool
}

var idForm = regexp.MustCompile(`^[0-9a-f]{8}$`)

// linkName returns the name of the host's only link.
func (o Options) linkName() string { return "mvm-" + o.ID }

func (o Options) check() error {
	switch {
	case o.Dir == "":
		return &microvm.FieldError{Field: "Options.Dir", Value: o.Dir, Reason: "must be set"}
	case !idForm.MatchString(o.ID):
		return &microvm.FieldError{Field: "Options.ID", Value: o.ID, Reason: "must be 8 hexadecimal digits"}
	case o.MTU != 0 && (o.MTU < leastMTU || o.MTU > mostMTU):
		return &microvm.FieldError{Field: "MICROVM_NETWORK_MTU", Value: o.MTU, Reason: fmt.Sprintf("must be %d to %d", leastMTU, mostMTU)}
	}
	return nil
}

// Open makes the network, or what is missing of it, and leaves the rest as it is. microvm.ErrInvalid when options are bad, or other than those that the network was made with, and
// microvm.ErrExhausted when no subnet is free.
func Open(ctx context.Context, options Options) (*Network, error) {
	if err := options.check(); err != nil {
		return nil, err
	}
	for _, dir := range []string{options.Dir, options.namespaces(), options.records(), options.locks()} {
		if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
	}
	lock, err := flock.Lock(ctx, options.lockPath())
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	n := &Network{options: options, rules: options.rules}
	if n.rules == nil {
		n.rules = installed{}
	}
	for range candidates {
		if err = n.open(); !errors.Is(err, errTaken) {
			break
		}
		if slots, failed := n.Slots(); failed != nil || len(slots) > 0 || options.Subnet.IsValid() {
			return nil, &microvm.FieldError{Field: "MICROVM_NETWORK_SUBNET", Value: n.plan.subnet, Reason: fmt.Sprintf("can't be reached: %v (set another)", err)}
		}
		if err := n.giveUp(); err != nil {
			return nil, err
		}
	}
	if err != nil {
		return nil, err
	}
	return n, nil
}

// open makes what is missing. errTaken when another has taken the subnet since it was chosen.
func (n *Network) open() error {
	s := step.Begin("network", n.options.Hook)
	for _, do := range []struct {
		name string
		do   func() error
	}{{"record", n.settle}, {"hub", n.hub}, {"hub-rules", n.hubRules}, {"host-rules", n.hostRules}, {"link", n.link}, {"routes", n.routes}} {
		if err := s.Do(do.name, do.do, nil); err != nil {
			return err
		}
	}
	return nil
}

// giveUp forgets which subnet was chosen: it is chosen again.
func (n *Network) giveUp() error {
	err := in(n.options.Host, func(h *netlink.Handle) error { return unlink(h, n.options.linkName()) })
	return errors.Join(err, os.Remove(n.options.recordPath()))
}

// settle decides what the network is, and writes it down, or reads what was decided.
func (n *Network) settle() error {
	was, err := loadRecord(n.options.recordPath())
	if err == nil {
		return n.adopt(was)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	r := record{Version: version, ID: n.options.ID, Subnet: n.options.Subnet, MTU: n.options.MTU}
	err = in(n.options.Host, func(h *netlink.Handle) error {
		used, err := uses(h, n.options.linkName())
		if err != nil {
			return err
		}
		if r.Subnet == (netip.Prefix{}) {
			r.Subnet, err = choose(r.ID, used)
		} else {
			err = checkSubnet(r.Subnet, used)
		}
		if err != nil {
			return err
		}
		name, mtu, err := uplink(h, n.options.Uplink)
		if r.Uplink = name; r.MTU == 0 {
			r.MTU = min(max(mtu, leastMTU), mostMTU)
		}
		return err
	})
	if err != nil {
		return err
	}
	n.record, n.plan = r, plan{r.Subnet}
	return save(n.options.recordPath(), r)
}

// adopt compares what was decided with the options. The uplink may be another, as a host's can: what was made for it doesn't depend on it.
func (n *Network) adopt(was record) error {
	const remedy = "the network was made with %v (remove all machines and purge, or leave it as it is)"
	switch {
	case was.ID != n.options.ID:
		return fmt.Errorf("%w: %s is of the network %s, not %s", microvm.ErrInvalid, n.options.Dir, was.ID, n.options.ID)
	case n.options.Subnet != (netip.Prefix{}) && n.options.Subnet != was.Subnet:
		return &microvm.FieldError{Field: "MICROVM_NETWORK_SUBNET", Value: n.options.Subnet, Reason: fmt.Sprintf(remedy, was.Subnet)}
	case n.options.MTU != 0 && n.options.MTU != was.MTU:
		return &microvm.FieldError{Field: "MICROVM_NETWORK_MTU", Value: n.options.MTU, Reason: fmt.Sprintf(remedy, was.MTU)}
	}
	n.record, n.plan = was, plan{was.Subnet}
	return in(n.options.Host, func(h *netlink.Handle) error {
		name, _, err := uplink(h, n.options.Uplink)
		if err != nil || name == was.Uplink {
			return err
		}
		n.record.Uplink = name
		return save(n.options.recordPath(), n.record)
	})
}
