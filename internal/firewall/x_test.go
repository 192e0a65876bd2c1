//go:build linux

package firewall

import (
	"github.com/tangle-network/microvm-runtime/egress"
	"github.com/tangle-network/microvm-runtime/internal/netns"
	"net/netip"
	"os/exec"
	"testing"
	"time"
)

func TestX(t *testing.T) {
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	ns.Do(func() error {
		out, err := exec.Command("ip", "link", "add", "name", "tap0", "type", "veth", "peer", "name", "p0").CombinedOutput()
		t.Log(string(out), err)
		return err
	})
	s, err := OpenSlot(ns)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	p := egress.Policy{}
	for _, x := range []string{"public", "10.0.0.0/8", "tcp:8.8.8.8:443", "udp:9.9.0.0/20:5-10", "icmp:public", "example.com:443", "*.x.org", "udp:y.org:443", "100.64.0.0/18"} {
		r, err := egress.ParseRule(x)
		if err != nil {
			t.Fatal(err)
		}
		p.Rules = append(p.Rules, r)
	}
	c := Config{Slot: netip.MustParseAddr("100.64.0.5"), Hub: netip.MustParseAddr("100.64.0.2"), Subnet: netip.MustParsePrefix("100.64.0.0/18"), Host: []netip.Addr{netip.MustParseAddr("192.0.2.9")}, MTU: 1500, Rules: AssignIDs(nil, p),
		GatePort: 15443, VerifySNI: true, Ingress: []Ingress{{egress.TCP, 80, 8080, []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}, {egress.UDP, 80, 8080, nil}}}
	for range 5 {
		st := time.Now()
		if err := s.Install(c); err != nil {
			t.Fatal(err)
		}
		t.Log(time.Since(st))
	}
	t.Log(s.Grant(6, netip.MustParseAddr("8.8.4.4"), time.Minute))
	t.Log(s.Grant(6, netip.MustParseAddr("8.8.4.4"), time.Hour))
	t.Log(s.Grant(61, netip.MustParseAddr("8.8.4.4"), time.Hour))
	t.Log(s.Install(c))
	t.Log(s.Counters())
	t.Log(s.Denied())
	ns.Do(func() error {
		out, err := exec.Command("sh", "-c", "for c in prerouting postrouting forward egress rules to-gate gate-marks gate-again gate gate-out arrivals input output admit; do echo $c; nft list chain ip microvm $c; done").CombinedOutput()
		t.Log(string(out), err)
		return nil
	})
	t.Log(s.Reset(c))
}
