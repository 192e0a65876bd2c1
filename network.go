package microvm

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/tangle-network/microvm-runtime/egress"
)

// Network is a machine's network interface, and what may pass it. The zero value is an interface that lets nothing out and nothing in.
//
// Inside, every machine's network is the same: eth0 with 172.16.0.2/30, and 172.16.0.1 as gateway and resolver. Outside, each has an address of its own in the driver's subnet, which
// [Info] tells. IPv6 is dropped.
type Network struct {
	// None gives the machine no network interface. All other fields must be zero then.
	None bool `json:"none,omitempty"`
	// Egress is where the guest may connect to.
	Egress egress.Policy `json:"egress,omitzero"`
	// Publish are the guest's ports that others may connect to: at most 64. Optional.
	Publish []Port `json:"publish,omitempty"`
	// Caps bound what the guest costs its neighbours.
	Caps FlowCaps `json:"caps,omitzero"`
	// Receive and Transmit bound what the guest receives and sends; operations are packets. Optional: no limit.
	Receive  *RateLimit `json:"receive,omitempty"`
	Transmit *RateLimit `json:"transmit,omitempty"`
}

// Port is a port of the guest's that others may connect to.
type Port struct {
	Protocol egress.Protocol `json:"protocol"` // TCP or UDP.
	Guest    uint16          `json:"guest"`    // The guest's port.
	// Host is where the host takes connections for it: one of its addresses, or 0.0.0.0 for all, and a port. It is the machine's alone until Destroy: [ErrBusy] names the machine that
	// has it. The zero value publishes Guest only at the machine's own address, for the host and for other machines whose Egress has it.
	Host netip.AddrPort `json:"host,omitzero"`
	// From are the IPv4 networks that may connect: at most 64, and the same for all Ports of one guest's port. Optional: all.
	From []netip.Prefix `json:"from,omitempty"`
}

// FlowCaps bound a guest's new flows and questions. A flow or a question beyond them is dropped. Zero fields are the driver's defaults.
type FlowCaps struct {
	Flows          int `json:"flows,omitempty"`            // Flows at once, 1 to 262144. Optional: 4096.
	FlowsPerSecond int `json:"flows_per_second,omitempty"` // New flows, 1 to 1000000. Twice as many may come at once. Optional: 500.
	NamesPerSecond int `json:"names_per_second,omitempty"` // Questions to the resolver, 1 to 100000. Twice as many may come at once. Optional: 100.
}

// NetworkInfo is what a machine's network is.
type NetworkInfo struct {
	Address netip.Addr   `json:"address"` // The machine's own, as the host and other machines see it.
	Guest   netip.Prefix `json:"guest"`   // As the guest sees it.
	Gateway netip.Addr   `json:"gateway"` // In the guest: its route and its resolver.
	MAC     string       `json:"mac"`     // The guest's.
}

const (
	maxPorts          = 64
	maxSources        = 64
	maxFlows          = 1 << 18
	maxFlowsPerSecond = 1e6
	maxNamesPerSecond = 1e5
)

func (s *Spec) checkNetwork() *FieldError {
	n := s.Network
	if n == nil {
		return nil
	}
	if n.None && (len(n.Egress.Rules) > 0 || n.Egress.VerifySNI || len(n.Publish) > 0 || n.Caps != FlowCaps{} || n.Receive != nil || n.Transmit != nil) {
		return bad("Network.None", n.None, "can't be set together with what an interface has")
	}
	if err := n.Egress.Validate(); err != nil {
		field, value := "Network.Egress", any(nil)
		if at := (*egress.FieldError)(nil); errors.As(err, &at) {
			return bad(field+"."+at.Field, at.Value, at.Reason)
		}
		return bad(field, value, err.Error())
	}
	for _, check := range []func() *FieldError{n.checkPorts, n.checkCaps} {
		if bad := check(); bad != nil {
			return bad
		}
	}
	for _, limit := range []struct {
		field string
		limit *RateLimit
	}{{"Network.Receive", n.Receive}, {"Network.Transmit", n.Transmit}} {
		if reason := limit.limit.bad(); reason != "" {
			return bad(limit.field, *limit.limit, reason)
		}
	}
	return nil
}

func (n *Network) checkPorts() *FieldError {
	if len(n.Publish) > maxPorts {
		return bad("Network.Publish", len(n.Publish), fmt.Sprintf("must be at most %d", maxPorts))
	}
	for i, port := range n.Publish {
		if reason := port.bad(); reason != "" {
			return bad("Network.Publish", i, fmt.Sprintf("port %d %s", i, reason))
		}
		if slices.ContainsFunc(n.Publish[:i], port.clashes) {
			return bad("Network.Publish", i, fmt.Sprintf("port %d is another one too", i))
		}
		if slices.ContainsFunc(n.Publish[:i], port.differs) {
			return bad("Network.Publish", i, fmt.Sprintf("port %d is for other networks than another one of the same guest's port", i))
		}
	}
	return nil
}

func (p *Port) bad() string {
	switch {
	case p.Protocol != egress.TCP && p.Protocol != egress.UDP:
		return "must be of tcp or udp"
	case p.Guest == 0:
		return "must have a port of the guest's, 1 to 65535"
	case p.Host != netip.AddrPort{} && (!p.Host.Addr().Is4() || p.Host.Port() == 0):
		return "must have an IPv4 address and a port of the host's, or neither"
	case len(p.From) > maxSources:
		return fmt.Sprintf("must have at most %d networks in From", maxSources)
	}
	for _, from := range p.From {
		if !from.Addr().Is4() || from != from.Masked() {
			return fmt.Sprintf("must have IPv4 networks without host bits in From, not %v", from)
		}
	}
	return ""
}

// differs says whether two ports are the same one of the guest's, for different networks: where a connection came to the host, the guest's side can't tell.
func (p *Port) differs(other Port) bool {
	return p.Protocol == other.Protocol && p.Guest == other.Guest && !slices.Equal(p.From, other.From)
}

// clashes says whether two ports of one machine are the same one.
func (p *Port) clashes(other Port) bool {
	return p.Clashes(other) || p.Protocol == other.Protocol && p.Host == other.Host && p.Guest == other.Guest
}

// Clashes says whether two ports take connections at one address and port of the host.
func (p *Port) Clashes(other Port) bool {
	if p.Protocol != other.Protocol || p.Host.Port() != other.Host.Port() || p.Host == (netip.AddrPort{}) {
		return false
	}
	a, b := p.Host.Addr(), other.Host.Addr()
	return a == b || a.IsUnspecified() || b.IsUnspecified()
}

func (n *Network) checkCaps() *FieldError {
	for _, number := range []struct {
		field      string
		value, max int
	}{{"Flows", n.Caps.Flows, maxFlows}, {"FlowsPerSecond", n.Caps.FlowsPerSecond, maxFlowsPerSecond}, {"NamesPerSecond", n.Caps.NamesPerSecond, maxNamesPerSecond}} {
		if number.value < 0 || number.value > number.max {
			return bad("Network.Caps."+number.field, number.value, fmt.Sprintf("must be 1 to %d, or 0 for the default", number.max))
		}
	}
	return nil
}

func (n *Network) copy() *Network {
	if n == nil {
		return nil
	}
	c := *n
	c.Egress.Rules = slices.Clone(n.Egress.Rules)
	c.Publish = slices.Clone(n.Publish)
	for i := range c.Publish {
		c.Publish[i].From = slices.Clone(n.Publish[i].From)
	}
	c.Receive, c.Transmit = n.Receive.copy(), n.Transmit.copy()
	return &c
}
