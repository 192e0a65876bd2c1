//go:build linux

package firewall

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"github.com/tangle-network/microvm-runtime/internal/netns"
)

// HubConfig is what the hub's rules are a function of.
type HubConfig struct {
	Hub    netip.Addr   // Where the resolver listens, on port 53.
	Subnet netip.Prefix // Of all slots.
}

// slotLinks are the names of the hub's ends of the slots' links.
const slotLinks = "s*"

// InstallHub makes the rules of the hub's namespace, in one transaction.
func InstallHub(ns *netns.Namespace, c HubConfig) error {
	if !c.Hub.Is4() || !c.Subnet.Contains(c.Hub) {
		return fmt.Errorf("firewall: hub %s must be an address of the subnet %s", c.Hub, c.Subnet)
	}
	kernel, err := dial(ns)
	if err != nil {
		return err
	}
	err = kernel.install(ruleset{hubTable(c), noIPv6()}, false)
	if err != nil {
		err = fmt.Errorf("install rules of the hub: %w", err)
	}
	return errors.Join(err, kernel.Close())
}

// hubTable passes packets on without tracking flows: slots decide, each at its end. What comes by a link must have a source that the link leads to.
func hubTable(c HubConfig) *table {
	t := &table{Table: nftables.Table{Name: tableName, Family: nftables.TableFamilyIPv4}, counters: []string{DropSpoofedAddress, DropStale, DropLocal}}
	untracked := func(at *nftables.ChainHook) base {
		return base{kind: nftables.ChainTypeFilter, hook: at, priority: -300, policy: nftables.ChainPolicyAccept}
	}
	noWayBack := match{&expr.Fib{Register: register, FlagSADDR: true, FlagIIF: true, ResultOIF: true}}
	t.addBase("prerouting", untracked(nftables.ChainHookPrerouting),
		all(noWayBack, equal(ne32(0)), dropAs(DropSpoofedAddress)),
		match{&expr.Notrack{}},
	)
	t.addBase("output-untracked", untracked(nftables.ChainHookOutput), match{&expr.Notrack{}})
	t.addBase("forward", hook(nftables.ChainTypeFilter, nftables.ChainHookForward, 0),
		all(comesBy(slotLinks), goesBy(uplink), fromNet(c.Subnet), accept()),
		all(comesBy(slotLinks), goesBy(slotLinks), fromNet(c.Subnet), to(c.Subnet), accept()),
		all(comesBy(uplink), goesBy(slotLinks), to(c.Subnet), accept()),
		count(DropStale),
	)
	resolver := netip.PrefixFrom(c.Hub, 32)
	input, output := []match{}, []match{}
	for _, n := range []byte{protoUDP, protoTCP} {
		input = append(input, all(comesBy(slotLinks), fromNet(c.Subnet), to(resolver), protocol(n), ports(destinationPort(), 53, 53), accept()))
		output = append(output, all(goesBy(slotLinks), fromNet(resolver), to(c.Subnet), protocol(n), ports(sourcePort(), 53, 53), accept()))
	}
	t.addBase("input", hook(nftables.ChainTypeFilter, nftables.ChainHookInput, 0), append(input, count(DropLocal))...)
	t.addBase("output", hook(nftables.ChainTypeFilter, nftables.ChainHookOutput, 0), append(output, count(DropLocal))...)
	return t
}
