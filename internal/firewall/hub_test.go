//go:build linux

package firewall

import (
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"github.com/tangle-network/microvm-runtime/internal/netns"
	vishnet "github.com/vishvananda/netlink"
)

// TestHostHub joins two bare namespaces, where slots would be, and the host, by the hub.
func TestHostHub(t *testing.T) {
	w := &world{T: t}
	hub, host := newNamespace(t), newNamespace(t)
	slots := []*netns.Namespace{newNamespace(t), newNamespace(t)}
	addresses := []string{"100.64.0.5", "100.64.0.6"}
	w.configure(hub, "lo", resolver+"/32", "", "")
	w.join(hub, uplink, host, "mvm0", "06:00:00:00:00:01")
	w.configure(host, "lo", public1+"/32", "", "")
	w.configure(host, "mvm0", "100.64.0.1/32", "", resolver)
	w.configure(hub, uplink, "", "100.64.0.1", "")
	for i, slot := range slots {
		name := []string{"s1", "s2"}[i]
		w.join(hub, name, slot, uplink, "06:00:00:00:01:0"+name[1:])
		w.configure(slot, uplink, addresses[i]+"/32", resolver, "")
		w.configure(hub, name, "", "", addresses[i])
		w.configure(slot, "lo", "100.64.0.99/32", "", "") // for lies
		w.settle(slot, uplink)
		w.settle(hub, name)
	}
	w.in(host, func(h *vishnet.Handle) error {
		link, err := h.LinkByName("mvm0")
		if err != nil {
			return err
		}
		subnet := &net.IPNet{IP: net.IPv4(100, 64, 0, 0).To4(), Mask: net.CIDRMask(18, 32)}
		return h.RouteAdd(&vishnet.Route{LinkIndex: link.Attrs().Index, Dst: subnet, Gw: net.ParseIP(resolver), Flags: int(vishnet.FLAG_ONLINK)})
	})
	w.settle(hub, uplink)
	w.settle(host, "mvm0")
	for _, ns := range append(slots, hub, host) {
		(&world{T: t, net: ns}).echo(53)
		(&world{T: t, net: ns}).echo(5000)
	}
	r := &hostRig{world: w}
	r.passes(host, "", resolver+":5000") // before there are rules
	if err := InstallHub(hub, HubConfig{Hub: address4(resolver), Subnet: netip.MustParsePrefix("100.64.0.0/18")}); err != nil {
		t.Fatal(err)
	}
	r.stays(slots[0], "", resolver+":5000")
	r.stays(host, "", resolver+":53")
	r.stays(host, "", resolver+":5000")
	r.stays(slots[0], "100.64.0.99", public1+":5000")
	r.stays(hub, resolver, public1+":5000")
	r.passes(slots[0], "", resolver+":53")
	r.passes(slots[0], "", public1+":5000")
	r.passes(slots[0], "", addresses[1]+":5000")
	r.passes(host, "", addresses[1]+":5000")
	if got := drops(t, hub); got[DropSpoofedAddress] == 0 || got[DropLocal] == 0 {
		t.Errorf("dropped are %v", got)
	}
	tracked := ""
	err := hub.Do(func() error {
		text, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_count")
		tracked = strings.TrimSpace(string(text))
		return err
	})
	if err != nil || tracked != "0" {
		t.Errorf("the hub tracks %s flows, %v", tracked, err)
	}
}

// drops are the packets that counters of a namespace have.
func drops(t *testing.T, ns *netns.Namespace) map[string]uint64 {
	t.Helper()
	c, err := dial(ns)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	answers, err := c.request(messageGetObject, netlink.Dump, nftables.TableFamilyIPv4, nil)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]uint64{}
	for _, answer := range answers {
		fields := values(answer.Data[4:])
		out[text(fields[attrObjectName])] = counterIn(fields[4]).Packets
	}
	return out
}
