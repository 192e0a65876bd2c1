//go:build linux

package network

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/vishvananda/netlink"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/netns"
	"github.com/tangle-network/microvm-runtime/internal/step"
)

// TestHostWorld is all that a network with one slot is, as text.
func TestHostWorld(t *testing.T) {
	r := newRig(t)
	r.options.Subnet = netip.MustParsePrefix("10.77.0.0/24")
	n := r.open()
	s := r.make(n, 7)
	for _, part := range []struct{ file, world string }{
		{"host", world(t, r.host)}, {"hub", worldAt(t, r.options.hubPath())}, {"slot", worldAt(t, s.Namespace)},
	} {
		want, err := os.ReadFile(filepath.Join("testdata", part.file+".txt"))
		if err != nil || part.world != string(want) {
			t.Errorf("%s: %v\n%s\nwant\n%s", part.file, err, part.world, want)
		}
	}
	if got := fmt.Sprintf("%+v", n.Info()); got != "{Subnet:10.77.0.0/24 Host:10.77.0.1 Hub:10.77.0.2 Link:mvm-0123abcd Uplink:wan0 MTU:1400 Slots:251}" {
		t.Error(got)
	}
	want := "{Slot:10.77.0.11 Guest:172.16.0.2/30 Gateway:172.16.0.1 GatewayMAC:06:00:ac:10:00:01 MAC:06:00:ac:10:00:02 Hub:10.77.0.2 MTU:1400}"
	if got := fmt.Sprintf("%+v", s.Addresses); got != want || s.UID != user(7) || s.GID != user(7) || s.Number != 7 {
		t.Errorf("%+v", s)
	}
	if host, err := n.HostAddresses(); err != nil || fmt.Sprint(host) != "[192.0.2.2 10.77.0.1]" {
		t.Error(host, err)
	}
}

// TestHostSettings: what each namespace is told is true of its links too.
func TestHostSettings(t *testing.T) {
	r := newRig(t)
	s := r.make(r.open(), 7)
	read := func(ns *netns.Namespace, name string) (text string) {
		err := ns.Do(func() error {
			content, err := os.ReadFile("/proc/sys/net/" + name)
			text = strings.TrimSpace(string(content))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	for path, links := range map[string][]string{s.Namespace: {TAP, link}, r.options.hubPath(): {link, "s7"}} {
		ns, err := netns.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer ns.Close()
		for _, link := range links {
			for name, want := range map[string]string{"forwarding": "1", "rp_filter": "1", "accept_redirects": "0", "send_redirects": "0", "accept_source_route": "0"} {
				if got := read(ns, "ipv4/conf/"+link+"/"+name); got != want {
					t.Errorf("%s %s %s is %s", filepath.Base(path), link, name, got)
				}
			}
			if got := read(ns, "ipv6/conf/"+link+"/disable_ipv6"); got != "1" {
				t.Errorf("%s %s has IPv6", filepath.Base(path), link)
			}
		}
	}
	for name, want := range map[string]string{"ip_forward": "1", "conf/mvm-0123abcd/rp_filter": "1", "conf/wan0/rp_filter": "0"} {
		if got := read(r.host, "ipv4/"+name); got != want {
			t.Errorf("the host's %s is %s", name, got)
		}
	}
}

// TestHostOpenIsIdempotent, also by others at the same time, and says what it can't change.
func TestHostOpenIsIdempotent(t *testing.T) {
	r := newRig(t)
	s := r.make(r.open(), 7)
	before := r.whole()
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() {
			n, err := Open(t.Context(), r.options)
			if err != nil {
				t.Error(err)
				return
			}
			if again, err := n.Slot(7); err != nil || fmt.Sprint(again) != fmt.Sprint(s) {
				t.Errorf("%v, %v", again, err)
			}
		})
	}
	wait.Wait()
	if after := r.whole(); after != before {
		t.Errorf("%s\nwas\n%s", after, before)
	}
	for field, change := range map[string]func(o *Options){
		"MICROVM_NETWORK_SUBNET": func(o *Options) { o.Subnet = netip.MustParsePrefix("10.1.0.0/18") },
		"MICROVM_NETWORK_MTU":    func(o *Options) { o.MTU = 1399 },
		"MICROVM_NETWORK_EGRESS": func(o *Options) { o.Uplink = "wan9" },
		"Options.ID":             func(o *Options) { o.ID = "0123ABCD" },
		"Options.Dir":            func(o *Options) { o.Dir = "" },
		"89abcdef":               func(o *Options) { o.ID = "89abcdef" },
	} {
		other := r.options
		change(&other)
		if _, err := Open(t.Context(), other); !errors.Is(err, microvm.ErrInvalid) || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
	r.link("wan1", 1500, "198.51.100.2/24")
	r.options.Uplink = "wan1"
	if info := r.open().Info(); info.Uplink != "wan1" || info.MTU != uplinkMTU {
		t.Errorf("%+v", info)
	}
}

// TestHostOptionsOfANewNetwork: what is set holds, and what can't be is told before anything is made.
func TestHostOptionsOfANewNetwork(t *testing.T) {
	r := newRig(t)
	r.link("lan0", 9000, "10.8.0.1/16")
	before := world(t, r.host)
	for text, says := range map[string]string{"10.8.64.0/18": "10.8.0.0/16 of lan0", "192.0.2.0/28": "192.0.2.0/24 of wan0", "10.0.0.0/9": "lan0"} {
		r.options.Subnet = netip.MustParsePrefix(text)
		if _, err := Open(t.Context(), r.options); !errors.Is(err, microvm.ErrInvalid) || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want %q", text, err, says)
		}
	}
	if after := world(t, r.host); after != before {
		t.Errorf("%s\nwas\n%s", after, before)
	}
	r.options.Subnet, r.options.MTU, r.options.Uplink = netip.MustParsePrefix("10.9.0.0/28"), 1300, "lan0"
	n := r.open()
	if info := n.Info(); info.Subnet != r.options.Subnet || info.MTU != 1300 || info.Uplink != "lan0" || info.Slots != 11 {
		t.Errorf("%+v", info)
	}
	if _, err := n.Make(t.Context(), 11, user(11), user(11)); !errors.Is(err, microvm.ErrExhausted) {
		t.Errorf("a twelfth of 11 slots: %v", err)
	}
	if s := r.make(n, 10); s.Slot != netip.MustParseAddr("10.9.0.14") || s.MTU != 1300 {
		t.Errorf("%+v", s)
	}
}

// TestHostNetworksBesideEachOther: a second state directory gets another subnet, and removing it leaves the first, what looks like ours, and what others have.
func TestHostNetworksBesideEachOther(t *testing.T) {
	r := newRig(t)
	r.link("mvm-0123abce", 1500, "192.168.7.1/24")
	r.link("mvm-x", 1500, "192.168.8.1/24")
	alone := world(t, r.host)
	first := r.open()
	r.make(first, 7)
	before := r.whole()

	other := r.options
	other.Dir, other.ID = filepath.Join(t.TempDir(), "network"), "ffffffff"
	second, err := Open(t.Context(), other)
	if err != nil {
		t.Fatal(err)
	}
	if first.Info().Subnet.Overlaps(second.Info().Subnet) {
		t.Errorf("%s and %s", first.Info().Subnet, second.Info().Subnet)
	}
	if _, err := second.Make(t.Context(), 7, user(7), user(7)); err != nil {
		t.Error(err)
	}
	foreign := filepath.Join(other.namespaces(), "foreign")
	if err := os.WriteFile(foreign, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(Remove(t.Context(), other), Remove(t.Context(), other)); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(foreign); err != nil {
		t.Error(err)
	}
	if after := r.whole(); after != before {
		t.Errorf("%s\nwas\n%s", after, before)
	}
	if _, err := first.Slot(7); err != nil {
		t.Error(err)
	}
	if err := Remove(t.Context(), r.options); err != nil {
		t.Error(err)
	}
	if after := world(t, r.host); after != alone {
		t.Errorf("%s\nwas\n%s", after, alone)
	}
}

// TestHostSubnetTakenMeanwhile: a route that another has made since the subnet was chosen stays, and another subnet is chosen; one that was set is an error.
func TestHostSubnetTakenMeanwhile(t *testing.T) {
	for _, set := range []string{"", "10.77.0.0/24"} {
		r := newRig(t)
		if set != "" {
			r.options.Subnet = netip.MustParsePrefix(set)
		}
		var theirs netip.Prefix
		r.options.Hook = func(point string) error {
			if point != "network/record:after" || theirs.IsValid() {
				return nil
			}
			was, err := loadRecord(r.options.recordPath())
			if theirs = was.Subnet; err != nil {
				return err
			}
			return in(r.host, func(h *netlink.Handle) error {
				return h.RouteAdd(&netlink.Route{Dst: ipNet(theirs), Gw: netip.MustParseAddr("192.0.2.9").AsSlice()})
			})
		}
		n, err := Open(t.Context(), r.options)
		if set != "" {
			if !errors.Is(err, microvm.ErrInvalid) || !strings.Contains(err.Error(), set) {
				t.Errorf("%s: %v", set, err)
			}
		} else if err != nil || n.Info().Subnet.Overlaps(theirs) {
			t.Errorf("theirs is %s: %+v, %v", theirs, n, err)
		}
		if now := world(t, r.host); !strings.Contains(now, "route "+theirs.String()+" by 192.0.2.9 of wan0") {
			t.Errorf("their route is gone:\n%s", now)
		}
		if set == "" {
			r.make(n, 7)
			if text := worldAt(t, r.options.hubPath()); strings.Count(text, "address ") != 2 {
				t.Errorf("the hub has what was given up:\n%s", text)
			}
		}
	}
}

// TestHostHubLost: the host's link without a hub is replaced, and with it each slot.
func TestHostHubLost(t *testing.T) {
	r := newRig(t)
	n := r.open()
	r.make(n, 7)
	want := r.whole()
	if err := netns.Remove(r.options.hubPath()); err != nil { // as after a start in another mount namespace
		t.Fatal(err)
	}
	if _, err := n.Slot(7); err == nil {
		t.Error("a slot without a hub is whole")
	}
	n = r.open()
	if _, err := n.Slot(7); err == nil {
		t.Error("a slot of another hub is whole")
	}
	r.make(n, 7)
	if got := r.whole(); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}

// TestHostFailedStepLeavesNothing of a slot.
func TestHostFailedStepLeavesNothing(t *testing.T) {
	r := newRig(t)
	r.open()
	boom := errors.New("boom")
	for _, name := range []string{"namespace", "settings", "link", "tap", "rules", "routes", "commit"} {
		r.options.Hook = step.Hook(func(point string) error {
			if point == "slot/"+name+":after" {
				return boom
			}
			return nil
		})
		n := r.open()
		if _, err := n.Make(t.Context(), 7, 1, 1); !errors.Is(err, boom) {
			t.Errorf("%s: %v", name, err)
		}
		if numbers, err := n.Slots(); err != nil || len(numbers) > 0 {
			t.Errorf("%s: slots %v, %v", name, numbers, err)
		}
		if _, err := os.Lstat(r.options.namespace(7)); err == nil {
			t.Errorf("%s: the namespace is left", name)
		}
		err := at(r.options.hubPath(), func(_ *netns.Namespace, h *netlink.Handle) error { _, err := h.LinkByName("s7"); return err })
		if !missing(err) {
			t.Errorf("%s: the link is left, or %v", name, err)
		}
	}
}
