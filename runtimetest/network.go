package runtimetest

import (
	"net/netip"
	"reflect"
	"strings"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/egress"
)

var badNetworks = []badSpec{
	badNetwork(microvm.Network{None: true, Publish: []microvm.Port{{Protocol: egress.TCP, Guest: 1}}}, "can't be set together"),
	badNetwork(microvm.Network{Egress: egress.Policy{Rules: []egress.Rule{{}}}}, "Egress.Rules[0]"),
	badNetwork(microvm.Network{Egress: egress.Policy{Rules: []egress.Rule{{CIDR: netip.MustParsePrefix("::/0")}}}}, "IPv6"),
	badNetwork(microvm.Network{Egress: egress.Policy{Rules: make([]egress.Rule, egress.MaxRules+1)}}, "at most 256"),
	badNetwork(microvm.Network{Publish: make([]microvm.Port, 65)}, "at most 64"),
	badNetwork(microvm.Network{Publish: []microvm.Port{{Guest: 1}}}, "tcp or udp"),
	badNetwork(microvm.Network{Publish: []microvm.Port{{Protocol: egress.UDP}}}, "1 to 65535"),
	badNetwork(microvm.Network{Publish: []microvm.Port{{Protocol: egress.TCP, Guest: 1, Host: netip.MustParseAddrPort("[::1]:1")}}}, "IPv4"),
	badNetwork(microvm.Network{Publish: []microvm.Port{{Protocol: egress.TCP, Guest: 1, Host: netip.MustParseAddrPort("127.0.0.1:0")}}}, "or neither"),
	badNetwork(microvm.Network{Publish: []microvm.Port{{Protocol: egress.TCP, Guest: 1, From: make([]netip.Prefix, 65)}}}, "at most 64 networks"),
	badNetwork(microvm.Network{Publish: []microvm.Port{{Protocol: egress.TCP, Guest: 1, From: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/8")}}}}, "without host bits"),
	badNetwork(microvm.Network{Publish: []microvm.Port{{Protocol: egress.TCP, Guest: 1}, {Protocol: egress.TCP, Guest: 1}}}, "port 1 is another one too"),
	badNetwork(microvm.Network{Publish: []microvm.Port{hostPort("0.0.0.0:80", 1), hostPort("127.0.0.1:80", 2)}}, "port 1 is another one too"),
	badNetwork(microvm.Network{Publish: []microvm.Port{
		hostPort("127.0.0.1:80", 1), {Protocol: egress.TCP, Guest: 1, Host: netip.MustParseAddrPort("127.0.0.1:81"), From: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}},
	}}, "other networks than another one"),
	badNetwork(microvm.Network{Caps: microvm.FlowCaps{Flows: -1}}, "1 to 262144"),
	badNetwork(microvm.Network{Caps: microvm.FlowCaps{FlowsPerSecond: 1e6 + 1}}, "1 to 1000000"),
	badNetwork(microvm.Network{Caps: microvm.FlowCaps{NamesPerSecond: 1e5 + 1}}, "1 to 100000"),
	badNetwork(microvm.Network{Receive: &microvm.RateLimit{BytesPerSecond: 1}}, "BytesPerSecond must be"),
	badNetwork(microvm.Network{Transmit: &microvm.RateLimit{OpsBurst: 1}}, "needs OpsPerSecond"),
}

func badNetwork(n microvm.Network, text string) badSpec {
	return badSpec{microvm.Spec{Network: &n}, text}
}

func hostPort(host string, guest uint16) microvm.Port {
	return microvm.Port{Protocol: egress.TCP, Guest: guest, Host: netip.MustParseAddrPort(host)}
}

var networks = group{"networks", []testCase{
	{"each machine has an address", func(c *checker) {
		var seen []netip.Addr
		for _, name := range []string{"one", "two"} {
			network := c.info(c.createNetwork(name, microvm.Network{})).Network
			if network == nil || !network.Address.Is4() || !network.Guest.IsValid() || !network.Gateway.IsValid() || network.MAC == "" {
				c.Fatalf("network %+v", network)
			}
			seen = append(seen, network.Address)
		}
		if seen[0] == seen[1] {
			c.Errorf("two machines have %v", seen[0])
		}
	}},
	{"an address stays", func(c *checker) {
		vm := c.createNetwork("one", microvm.Network{})
		before := *c.info(vm).Network
		c.ok(vm.Start(c.ctx, nil))
		_, err := vm.Stop(c.ctx, &microvm.StopOptions{Force: true})
		c.ok(err)
		c.ok(vm.Start(c.ctx, nil))
		if after := c.info(vm).Network; after == nil || *after != before {
			c.Errorf("network %+v, was %+v", after, before)
		}
	}},
	{"none is none", func(c *checker) {
		vm := c.createNetwork("one", microvm.Network{None: true})
		c.ok(vm.Start(c.ctx, nil))
		if got := c.info(vm).Network; got != nil {
			c.Errorf("network %+v", got)
		}
	}},
	{"a port of the host's is one machine's", func(c *checker) {
		first := c.createNetwork("first", microvm.Network{Publish: []microvm.Port{hostPort("127.0.0.1:18080", 80)}})
		c.leavesNothing("a second", func() {
			spec := c.h.Spec.Copy()
			spec.Network = &microvm.Network{Publish: []microvm.Port{hostPort("0.0.0.0:18080", 81)}}
			_, err := c.rt.Create(c.ctx, "second", spec)
			c.is(err, microvm.ErrBusy)
			if !strings.Contains(err.Error(), first.UID()) {
				c.Errorf("error %q does not name the machine that has it", err)
			}
		})
		c.ok(first.Destroy(c.ctx))
		c.createNetwork("second", microvm.Network{Publish: []microvm.Port{hostPort("0.0.0.0:18080", 81)}})
	}},
}}

var updates = group{"updates", []testCase{
	{"of the network", func(c *checker) {
		vm := c.createNetwork("one", microvm.Network{})
		policy := egress.Policy{Rules: []egress.Rule{{Name: "example.com", Protocol: egress.TCP, FirstPort: 443, LastPort: 443}}}
		ports := []microvm.Port{hostPort("127.0.0.1:18081", 80)}
		change := microvm.Change{Egress: &policy, Publish: &ports, Caps: &microvm.FlowCaps{Flows: 7}, Receive: &microvm.RateLimit{BytesPerSecond: 1 << 20}}
		for _, start := range []bool{false, true} {
			if start {
				c.ok(vm.Start(c.ctx, nil))
				change.Receive.BytesPerSecond++
			}
			c.ok(vm.Update(c.ctx, change))
			want := microvm.Network{Egress: policy, Publish: ports, Caps: microvm.FlowCaps{Flows: 7}, Receive: change.Receive}
			if got := c.info(vm).Spec.Network; !reflect.DeepEqual(*got, want) {
				c.Errorf("network %+v, want %+v", *got, want)
			}
		}
		c.ok(vm.Update(c.ctx, microvm.Change{Receive: &microvm.RateLimit{}}))
		if got := c.info(vm).Spec.Network.Receive; got != nil {
			c.Errorf("limit %+v after it was taken away", got)
		}
	}},
	{"a bad one changes nothing", func(c *checker) {
		vm := c.createNetwork("one", microvm.Network{None: true})
		before := c.info(vm).Spec
		for _, change := range []microvm.Change{
			{Egress: &egress.Policy{}}, {DriveLimit: map[int]microvm.RateLimit{0: {}}}, {DiskLimit: &microvm.RateLimit{BytesPerSecond: 1}},
		} {
			err := vm.Update(c.ctx, change)
			c.is(err, microvm.ErrInvalid)
			if after := c.info(vm).Spec; !reflect.DeepEqual(after, before) {
				c.Errorf("spec %+v, was %+v", after, before)
			}
		}
	}},
	{"of nobody", func(c *checker) {
		vm := c.create("one")
		c.ok(vm.Destroy(c.ctx))
		c.is(vm.Update(c.ctx, microvm.Change{}), microvm.ErrNotFound)
	}},
}}

// createNetwork makes a machine with a network.
func (c *checker) createNetwork(name string, network microvm.Network) *microvm.VM {
	c.Helper()
	spec := c.h.Spec.Copy()
	spec.Network = &network
	vm, err := c.rt.Create(c.ctx, name, spec)
	c.ok(err)
	return vm
}
