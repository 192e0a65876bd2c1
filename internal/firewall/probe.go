//go:build linux

package firewall

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"github.com/tangle-network/microvm-runtime/egress"
	"github.com/tangle-network/microvm-runtime/internal/netns"
	"github.com/tangle-network/microvm-runtime/internal/unix"
)

// LacksError says what rules need and the kernel was configured without, or has no module of.
type LacksError struct {
	Option string // Of the kernel's configuration, such as CONFIG_NFT_CONNLIMIT.
	For    string // What needs it.
	Err    error  // What the kernel answers.
}

func (e *LacksError) Error() string {
	return fmt.Sprintf("the kernel has no %s, for %s: %v", e.Option, e.For, e.Err)
}

func (e *LacksError) Unwrap() error { return e.Err }

// Probe makes the rules of a slot, the hub and the host in a network namespace that nobody else sees and that is gone afterwards. Nil says that the kernel takes them; else
// there is a [LacksError] for each thing that it lacks, as far as that can be told. It needs root.
func Probe() error {
	ns, err := netns.New()
	if err != nil {
		return err
	}
	err = probe(ns, needs())
	if err == nil {
		err = probeAll(ns)
	}
	return errors.Join(err, ns.Close())
}

// need is a table that a kernel takes only when it has an option.
type need struct {
	option, why string
	table       *table
}

// needs are what rules are made of.
func needs() []need {
	at := hook(nftables.ChainTypeFilter, nftables.ChainHookForward, 0)
	var list []need
	add := func(option, why string, base base, rule match) *table {
		t := &table{Table: nftables.Table{Name: tableName, Family: nftables.TableFamilyIPv4}}
		t.addBase("try", base, rule)
		list = append(list, need{option, why, t})
		return t
	}
	from, to := natHook(nftables.ChainHookPostrouting, 100), natHook(nftables.ChainHookPrerouting, -100)
	add("CONFIG_NF_TABLES_IPV4", "rules of any kind", at, accept())
	add("CONFIG_NFT_CT", "flows", at, isNew())
	add("CONFIG_NFT_CONNLIMIT", "the cap on flows", at, moreFlowsThan(1))
	timeout := add("CONFIG_NF_CONNTRACK_TIMEOUT", "the cap on flows, of those that have ended", at, closing())
	timeout.closing = closingTimeout
	add("CONFIG_NFT_LIMIT", "caps on new flows", at, over(1, 1))
	add("CONFIG_NFT_LOG and CONFIG_NETFILTER_NETLINK_LOG", "the events of denied flows", at, match{&expr.Log{Key: 1 << 1, Group: deniedGroup}})
	add("CONFIG_NFT_NAT", "the guests' addresses", from, sourceAs(gatewayAddr()))
	add("CONFIG_NFT_MASQ", "the way out of the host", from, match{&expr.Masq{}})
	add("CONFIG_NFT_REDIR", "VerifySNI", to, all(protocol(protoTCP), redirectTo(1)))
	add("CONFIG_NFT_FIB_IPV4", "published ports and the hub", to, isLocal())
	add("CONFIG_NF_TABLES_NETDEV", "what a guest says of who it is", base{nftables.ChainTypeFilter, nftables.ChainHookIngress, -500, nftables.ChainPolicyDrop, "lo"}, accept()).Family = nftables.TableFamilyNetdev
	list = append(list, need{"CONFIG_NF_TABLES_IPV6", "keeping IPv6 out", noIPv6()})
	return list
}

// probe tries each alone.
func probe(ns *netns.Namespace, needs []need) error {
	c, err := dial(ns)
	if err != nil {
		return err
	}
	if _, err := c.generation(); err != nil {
		return errors.Join(&LacksError{"CONFIG_NF_TABLES", "rules of any kind", err}, c.Close())
	}
	var errs []error
	for _, n := range needs {
		b := newBatch()
		n.table.write(b, nil, false)
		b.deleteTable(&n.table.Table)
		if err := c.transact(b, 0); err != nil {
			errs = append(errs, &LacksError{n.option, n.why, err})
		}
	}
	return errors.Join(append(errs, c.Close())...)
}

// probeAll tries what machines get.
func probeAll(ns *netns.Namespace) error {
	tapFile, err := openIn(ns)
	if err != nil {
		return err
	}
	defer tapFile.Close()
	subnet, hub, slot := netip.MustParsePrefix("100.64.0.0/18"), netip.MustParseAddr("100.64.0.2"), netip.MustParseAddr("100.64.0.5")
	host, err := OpenHost(ns, HostConfig{ID: "probe", Link: uplink, Subnet: subnet})
	if err != nil {
		return err
	}
	defer host.Close()
	if err := errors.Join(host.Install(), host.Admit(slot, 1), host.Remove(), InstallHub(ns, HubConfig{Hub: hub, Subnet: subnet})); err != nil {
		return err
	}
	s, err := OpenSlot(ns)
	if err != nil {
		return err
	}
	policy := egress.Policy{Rules: []egress.Rule{{Name: "example.com", Protocol: egress.TCP, FirstPort: 443, LastPort: 443}}}
	return errors.Join(s.Reset(Config{Slot: slot, Hub: hub, Subnet: subnet}), s.Install(Config{
		Slot: slot, Hub: hub, Subnet: subnet, MTU: 1500, Rules: AssignIDs(nil, policy), VerifySNI: true, GatePort: 1, Ingress: []Ingress{{egress.UDP, 53, 53, nil}},
	}), s.Close())
}

// openIn makes the device that frames come by.
func openIn(ns *netns.Namespace) (file interface{ Close() error }, err error) {
	err = ns.Do(func() (err error) {
		file, err = unix.OpenTAP(tap)
		return err
	})
	return file, err
}
