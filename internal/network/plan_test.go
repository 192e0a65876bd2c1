//go:build linux

package network

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	microvm "github.com/tangle-network/microvm-runtime"
)

func TestPlanOfASubnet(t *testing.T) {
	p := plan{netip.MustParsePrefix("10.1.2.0/28")}
	if got := fmt.Sprint(p.host(), p.hub(), p.slots()); got != "10.1.2.1 10.1.2.2 11" {
		t.Error(got)
	}
	for number, want := range map[int]string{0: "10.1.2.4", 10: "10.1.2.14"} {
		if got, err := p.slot(number); err != nil || got.String() != want {
			t.Errorf("slot %d: %s, %v, want %s", number, got, err, want)
		}
	}
	if _, err := p.slot(11); !errors.Is(err, microvm.ErrExhausted) || !strings.Contains(err.Error(), "MICROVM_NETWORK_SUBNET") {
		t.Error(err)
	}
	if _, err := p.slot(-1); !errors.Is(err, microvm.ErrInvalid) {
		t.Error(err)
	}
	if got, err := (plan{netip.MustParsePrefix("10.64.0.0/18")}).slot(16378); err != nil || got.String() != "10.64.63.254" {
		t.Error(got, err)
	}
}

func TestSubnetsThatMayBeSet(t *testing.T) {
	used := []taken{{netip.MustParsePrefix("10.8.0.0/16"), "the route 10.8.0.0/16 of wg0"}, {netip.MustParsePrefix("192.168.1.7/32"), "the address of eth0"}}
	for text, says := range map[string]string{
		"10.64.0.0/18":     "",
		"10.0.0.0/13":      "",
		"192.168.1.16/28":  "",
		"10.8.255.0/24":    "10.8.0.0/16 of wg0",
		"10.0.0.0/8":       "10.8.0.0/16 of wg0",
		"192.168.1.0/28":   "address of eth0",
		"10.64.0.1/18":     "10.64.0.0/18",
		"10.64.0.0/29":     "/8 to /28",
		"128.0.0.0/1":      "/8 to /28",
		"fd00::/18":        "IPv4",
		"127.1.0.0/18":     "127.0.0.0/8",
		"172.16.0.0/12":    "172.16.0.0/30",
		"169.254.128.0/18": "169.254.0.0/16",
		"240.0.0.0/8":      "224.0.0.0/3",
	} {
		err := checkSubnet(netip.MustParsePrefix(text), used)
		if says == "" && err != nil || says != "" && (!errors.Is(err, microvm.ErrInvalid) || !strings.Contains(err.Error(), says)) {
			t.Errorf("%s: %v, want %q", text, err, says)
		}
	}
}

func TestChosenSubnetIsFree(t *testing.T) {
	var used []taken
	use := func(text string) { used = append(used, taken{netip.MustParsePrefix(text), "a route"}) }
	seen := map[netip.Prefix]bool{}
	for _, id := range []string{"0", "1", "2", "3"} {
		subnet, err := choose(id, nil)
		if err != nil || checkSubnet(subnet, nil) != nil || subnet.Bits() != 18 || !netip.MustParsePrefix("10.64.0.0/10").Contains(subnet.Addr()) {
			t.Errorf("%s: %s, %v", id, subnet, err)
		}
		seen[subnet] = true
	}
	if len(seen) < 3 {
		t.Errorf("four networks would all choose of %v", seen)
	}
	first, _ := choose("0", nil)
	use(first.String())
	if second, err := choose("0", used); err != nil || second.Overlaps(first) {
		t.Errorf("%s again, %v", second, err)
	}
	use("10.0.0.0/8")
	if subnet, err := choose("0", used); err != nil || !netip.MustParsePrefix("100.64.0.0/10").Contains(subnet.Addr()) {
		t.Errorf("%s, %v", subnet, err)
	}
	use("96.0.0.0/4")
	use("198.18.0.0/17")
	use("198.19.0.0/16")
	if subnet, err := choose("0", used); err != nil || !netip.MustParsePrefix("198.18.128.0/17").Contains(subnet.Addr()) {
		t.Errorf("%s, %v", subnet, err)
	}
	use("198.18.128.0/17")
	if subnet, err := choose("0", used); !errors.Is(err, microvm.ErrExhausted) {
		t.Errorf("%s, %v", subnet, err)
	}
}
