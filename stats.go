package microvm

import (
	"net/netip"
	"time"

	"github.com/tangle-network/microvm-runtime/egress"
)

// Stats are what a machine has done.
type Stats struct {
	Network *NetworkStats `json:"network,omitempty"` // Nil where the machine has no network interface.
	Memory  *MemoryStats  `json:"memory,omitempty"`  // Nil unless a helper serves the machine's memory page by page: see MemoryUFFD.
}

// MemoryStats count what the helper that serves a machine's memory has done. One that takes over begins anew.
type MemoryStats struct {
	PageSize int64 `json:"page_size"` // Bytes. 0 before the VMM has connected, as Pages is.
	Pages    int64 `json:"pages"`     // Of the machine's memory.
	TookOver bool  `json:"took_over"` // Another helper served it before.

	Faults     uint64 `json:"faults"`     // Pages that the guest has waited for.
	Copied     uint64 `json:"copied"`     // Pages that were copied from the snapshot because of that.
	Zeroed     uint64 `json:"zeroed"`     // Pages that the guest had given up, and asked for again.
	Removed    uint64 `json:"removed"`    // Pages that the guest has given up.
	Prefetched uint64 `json:"prefetched"` // Pages that were copied before the guest asked for them: the snapshot's working set.

	Prefetch time.Duration `json:"prefetch"` // How long the working set took. 0 until all of it is there.
	// P50 and P99 are the times that half and 99 % of the faults were served within: from when the helper has heard of one until the page is there. Each is at most an eighth too long. 0 without faults.
	P50 time.Duration `json:"p50"`
	P99 time.Duration `json:"p99"`
}

// NetworkStats count a machine's packets since its Create, or since the host's boot. What a rule's flows receive is counted for it too.
type NetworkStats struct {
	Rules  []RuleStats       `json:"rules,omitempty"`  // Of each rule of Network.Egress, in its order.
	Drops  map[string]uint64 `json:"drops,omitempty"`  // Packets that were dropped, by the reason: such as "spoofed_address", "ipv6", "denied", "connection_limit".
	Denied []DeniedFlow      `json:"denied,omitempty"` // Flows that no rule allows, of the last ten minutes: at most 1024.
}

// RuleStats is what one rule has let through.
type RuleStats struct {
	Rule    egress.Rule `json:"rule"`
	Packets uint64      `json:"packets"`
	Bytes   uint64      `json:"bytes"`
}

// DeniedFlow is a flow that no rule allows, or a name that none does: of that only Name is set, or only Address where a rule allows the name and no name opens the address.
type DeniedFlow struct {
	Protocol egress.Protocol `json:"protocol,omitempty"`
	Address  netip.Addr      `json:"address,omitzero"`
	Port     uint16          `json:"port,omitempty"`
	Name     string          `json:"name,omitempty"` // What was asked the resolver for, or TLS, where that is what was denied.
	Packets  uint64          `json:"packets"`
}

// Opens returns the rule that would let the flow pass: valid, or the zero value where no rule can. The guest chooses the names that it asks for: such as public or *.com is no name of a
// rule's, and the rule that it reads as would open more than was denied.
func (f DeniedFlow) Opens() egress.Rule {
	rule := egress.Rule{Name: f.Name, Protocol: f.Protocol, FirstPort: f.Port, LastPort: f.Port}
	if f.Name == "" {
		rule.CIDR = netip.PrefixFrom(f.Address, f.Address.BitLen())
	}
	if f.Protocol != egress.TCP && f.Protocol != egress.UDP { // others have no port, and some no name of their own
		rule.FirstPort, rule.LastPort = 0, 0
		if f.Protocol != egress.ICMP {
			rule.Protocol = egress.Any
		}
	}
	if rule.Validate() != nil || f.Name != "" && !rule.MatchName(f.Name) {
		return egress.Rule{}
	}
	return rule
}
