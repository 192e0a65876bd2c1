package microvm

import (
	"fmt"

	"github.com/tangle-network/microvm-runtime/egress"
)

// Change is what [VM.Update] changes of a machine. Nil fields stay as they are. A limit that points to the zero value is no limit any more.
type Change struct {
	Egress     *egress.Policy    // In place of Network.Egress, at once. Flows under way that it does not allow are cut.
	Publish    *[]Port           // In place of Network.Publish. Connections to a port that is published no more are cut.
	Caps       *FlowCaps         // In place of Network.Caps.
	Receive    *RateLimit        // In place of Network.Receive.
	Transmit   *RateLimit        // In place of Network.Transmit.
	DiskLimit  *RateLimit        // In place of DiskLimit.
	DriveLimit map[int]RateLimit // In place of the Limit of the drives with these indices.
}

// Empty says whether it changes nothing.
func (c Change) Empty() bool {
	return c.Egress == nil && c.Publish == nil && c.Caps == nil && c.Receive == nil && c.Transmit == nil && c.DiskLimit == nil && len(c.DriveLimit) == 0
}

// Apply returns the spec with the change made: valid, or a *[FieldError].
func (c Change) Apply(spec Spec) (Spec, error) {
	spec = spec.Copy()
	if c.Egress != nil || c.Publish != nil || c.Caps != nil || c.Receive != nil || c.Transmit != nil {
		if spec.Network == nil || spec.Network.None {
			return Spec{}, &FieldError{Field: "Change", Value: "of the network", Reason: "the machine has no network interface (it is given one at Create)"}
		}
		c.applyNetwork(spec.Network)
	}
	if c.DiskLimit != nil {
		spec.DiskLimit = c.DiskLimit.limit()
	}
	for i, limit := range c.DriveLimit {
		if i < 0 || i >= len(spec.Drives) {
			return Spec{}, &FieldError{Field: "Change.DriveLimit", Value: i, Reason: fmt.Sprintf("the machine has %d drives", len(spec.Drives))}
		}
		spec.Drives[i].Limit = limit.limit()
	}
	spec = spec.Copy() // the change may share what it was made of
	return spec, spec.Validate()
}

func (c Change) applyNetwork(n *Network) {
	if c.Egress != nil {
		n.Egress = *c.Egress
	}
	if c.Publish != nil {
		n.Publish = *c.Publish
	}
	if c.Caps != nil {
		n.Caps = *c.Caps
	}
	if c.Receive != nil {
		n.Receive = c.Receive.limit()
	}
	if c.Transmit != nil {
		n.Transmit = c.Transmit.limit()
	}
}

// limit returns nil for a limit that limits nothing, else a copy.
func (l *RateLimit) limit() *RateLimit {
	if *l == (RateLimit{}) {
		return nil
	}
	return l.copy()
}
