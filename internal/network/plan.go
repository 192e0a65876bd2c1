//go:build linux

package network

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"net"
	"net/netip"

	microvm "github.com/tangle-network/microvm-runtime"
)

// Names of links, the same everywhere.
const (
	TAP  = "tap0" // Of a slot's namespace: the guest's.
	link = "up0"  // Of a slot's namespace, to the hub, and of the hub, to the host.
)

// What guests see, the same in each slot.
var (
	gateway = netip.MustParsePrefix("172.16.0.1/30")
	guest   = netip.MustParsePrefix("172.16.0.2/30")
)

// MACs, the same in each slot: explicit, so that udev makes no others, and known to the other end, so that nobody has to ask.
var (
	gatewayMAC  = net.HardwareAddr{0x06, 0x00, 0xac, 0x10, 0x00, 0x01}
	guestMAC    = net.HardwareAddr{0x06, 0x00, 0xac, 0x10, 0x00, 0x02}
	slotMAC     = net.HardwareAddr{0x06, 0x00, 0xac, 0x11, 0x00, 0x02}
	slotHubMAC  = net.HardwareAddr{0x06, 0x00, 0xac, 0x11, 0x00, 0x01}
	hubMAC      = net.HardwareAddr{0x06, 0x00, 0xac, 0x12, 0x00, 0x02}
	hostLinkMAC = net.HardwareAddr{0x06, 0x00, 0xac, 0x12, 0x00, 0x01}
)

// The addresses of a subnet: the first is the network's, then those of the host's and the hub's end, one that is kept, and those of the slots; the last is the broadcast's.
const (
	hostOffset = 1
	hubOffset  = 2
	slotOffset = 4
	kept       = slotOffset + 1
)

const (
	widest, narrowest = 8, 28 // Lengths that a subnet's prefix may have.
	defaultLength     = 18
)

// candidates are where a subnet is chosen from when none is set: private, and seldom used at once.
var candidates = []netip.Prefix{netip.MustParsePrefix("10.64.0.0/10"), netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("198.18.0.0/15")}

// unusable are addresses that no subnet may hold.
var unusable = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("224.0.0.0/3"), guest.Masked(),
}

// plan is a subnet and its addresses.
type plan struct{ subnet netip.Prefix }

func (p plan) host() netip.Addr { return p.at(hostOffset) }
func (p plan) hub() netip.Addr  { return p.at(hubOffset) }

// slots returns how many slots there are addresses for.
func (p plan) slots() int { return 1<<(32-p.subnet.Bits()) - kept }

// slot returns a slot's address.
func (p plan) slot(number int) (netip.Addr, error) {
	if number < 0 {
		return netip.Addr{}, fmt.Errorf("%w: slot %d", microvm.ErrInvalid, number)
	}
	if number >= p.slots() {
		return netip.Addr{}, fmt.Errorf("%w: slot %d has no address in the subnet %s, which has %d (set MICROVM_NETWORK_SUBNET to a larger one)", microvm.ErrExhausted, number, p.subnet, p.slots())
	}
	return p.at(slotOffset + number), nil
}

func (p plan) at(offset int) netip.Addr {
	base := p.subnet.Addr().As4()
	return fourBytes(binary.BigEndian.Uint32(base[:]) + uint32(offset))
}

func fourBytes(n uint32) netip.Addr {
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, n)))
}

// taken is a range of addresses that the host has a use for.
type taken struct {
	prefix netip.Prefix
	what   string // Such as "the route 10.0.0.0/8 of wg0".
}

// checkSubnet says what is wrong with a subnet that was set.
func checkSubnet(subnet netip.Prefix, used []taken) error {
	field := &microvm.FieldError{Field: "MICROVM_NETWORK_SUBNET", Value: subnet}
	switch {
	case !subnet.IsValid() || !subnet.Addr().Is4():
		field.Reason = "must be an IPv4 subnet"
	case subnet.Bits() < widest || subnet.Bits() > narrowest:
		field.Reason = fmt.Sprintf("must be of /%d to /%d", widest, narrowest)
	case subnet != subnet.Masked():
		field.Reason = fmt.Sprintf("has bits beyond its prefix (%s has not)", subnet.Masked())
	default:
		for _, not := range unusable {
			if not.Overlaps(subnet) {
				field.Reason = "must not hold addresses of " + not.String()
				return field
			}
		}
		if use := overlap(subnet, used); use != nil {
			field.Reason = fmt.Sprintf("overlaps %s (set another, or none for one that is free)", use.what)
			return field
		}
		return nil
	}
	return field
}

func overlap(subnet netip.Prefix, used []taken) *taken {
	for i := range used {
		if used[i].prefix.Overlaps(subnet) {
			return &used[i]
		}
	}
	return nil
}

// choose returns a subnet that the host has no use for. Networks begin to look at different places, so that those made at the same time seldom meet.
func choose(id string, used []taken) (netip.Prefix, error) {
	hash := fnv.New32a()
	hash.Write([]byte(id))
	for _, from := range candidates {
		count := uint32(1) << (defaultLength - from.Bits())
		base := from.Addr().As4()
		for i := range count {
			at := (hash.Sum32() + i) % count
			subnet := netip.PrefixFrom(fourBytes(binary.BigEndian.Uint32(base[:])+at<<(32-defaultLength)), defaultLength)
			if overlap(subnet, used) == nil {
				return subnet, nil
			}
		}
	}
	return netip.Prefix{}, fmt.Errorf("%w: no /%d of %v is free of the host's routes (set MICROVM_NETWORK_SUBNET)", microvm.ErrExhausted, defaultLength, candidates)
}
