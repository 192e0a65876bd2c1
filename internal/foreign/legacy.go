//go:build linux

package foreign

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/tangle-network/microvm-runtime/internal/unix"
)

// legacyNames lists the tables of iptables-legacy of the calling thread's network namespace.
const legacyNames = "/proc/thread-self/net/ip_tables_names"

// readLegacy adds the chain FORWARD of iptables-legacy's table filter, when there is one. A table that is not there yet isn't asked for: the kernel would make it.
func (r *Ruleset) readLegacy() {
	names, err := os.ReadFile(legacyNames)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		r.Legacy = err
	}
	if !slices.Contains(strings.Fields(string(names)), "filter") {
		return
	}
	table, err := unix.ReadLegacyTable("filter")
	if err != nil {
		r.Legacy = err
		return
	}
	chain, err := legacy(table).forward()
	if r.Legacy = err; err == nil {
		r.Chains = append(r.Chains, chain)
	}
}

// legacy is a table of iptables-legacy. Its rules are entries, one behind the other, and what they name are offsets.
type legacy unix.LegacyTable

// Offsets in struct ipt_entry, and in the struct xt_entry_match and xt_entry_target behind it (include/uapi/linux/netfilter).
const (
	entrySource, entryDestination, entrySourceMask, entryDestinationMask = 0, 4, 8, 12
	entryIn, entryOut, entryInMask, entryOutMask                         = 16, 32, 48, 64
	entryProtocol, entryFlags, entryInverted                             = 80, 82, 83
	entryTarget, entryNext                                               = 88, 90
	entrySize                                                            = 112

	extensionName, extensionRevision, extensionInfo = 2, 31, 32

	linkSize, addressSize = 16, 4
)

const (
	flagFragment, flagGoto                               = 1, 2        // IPT_F_FRAG, IPT_F_GOTO
	invertIn, invertOut, invertSource, invertDestination = 1, 2, 8, 16 // IPT_INV_…

	hookForward = 2         // NF_INET_FORWARD
	forward     = "FORWARD" // as the kernel does not call it

	// What a target without name says, when it is no offset: the kernel's verdicts, less one, negative.
	legacyDrop, legacyAccept, legacyReturn = -1, -2, -5
)

// entry is one of a table's, by its bytes.
type entry []byte

func (e entry) short(at int) int { return int(binary.NativeEndian.Uint16(e[at:])) }

func (e entry) target() []byte { return e[e.short(entryTarget):] }

// verdict is what a target without name has: an offset, or a verdict.
func (e entry) verdict() int {
	return int(int32(binary.NativeEndian.Uint32(e.target()[extensionInfo:])))
}

// text is a name within bytes.
func text(b []byte) string {
	name, _, _ := bytes.Cut(b, []byte{0})
	return string(name)
}

// entries splits a table. What is between entries is checked: nothing of it is read beyond its end afterwards.
func (l legacy) entries() (map[int]entry, []int, error) {
	entries, order := map[int]entry{}, []int(nil)
	for at := 0; at < len(l.Entries); {
		rest := entry(l.Entries[at:])
		if len(rest) < entrySize {
			return nil, nil, fmt.Errorf("iptables-legacy: there is no whole entry at %d", at)
		}
		next, target := rest.short(entryNext), rest.short(entryTarget)
		if target < entrySize || target+extensionInfo+4 > next || next > len(rest) {
			return nil, nil, fmt.Errorf("iptables-legacy: the entry at %d has a target at %d, and ends at %d", at, target, next)
		}
		entries[at], order = rest[:next], append(order, at)
		at += next
	}
	return entries, order, nil
}

// forward returns the chain of that name, with all that it leads to.
func (l legacy) forward() (Chain, error) {
	entries, order, err := l.entries()
	if err != nil {
		return Chain{}, err
	}
	last, ok := entries[int(l.Policies[hookForward])]
	if !ok {
		return Chain{}, fmt.Errorf("iptables-legacy: there is no policy at %d", l.Policies[hookForward])
	}
	policy := accepts
	if last.verdict() == legacyDrop {
		policy = drops
	}
	starts := l.starts(entries, order)
	c, name := chains{}, ""
	for _, at := range order {
		if start, ok := starts[at]; ok {
			name = start
		}
		if at != int(l.Policies[hookForward]) {
			c[name] = append(c[name], entries[at].rule(at, starts))
		}
	}
	judge := func(p Packet) Judgement { return c.judge(forward, policy, p) }
	return Chain{Family: "ip", Table: "filter", Name: forward, Legacy: true, Judge: judge}, nil
}

// starts returns the names of chains by where their first entry is: behind one with their name, or where the table says.
func (l legacy) starts(entries map[int]entry, order []int) map[int]string {
	starts := map[int]string{}
	for _, at := range order {
		if e := entries[at]; text(e.target()[extensionName:extensionRevision]) == "ERROR" {
			starts[at+len(e)] = text(e.target()[extensionInfo:])
		}
	}
	for hook, at := range l.Hooks {
		starts[int(at)] = fmt.Sprint("hook ", hook)
	}
	starts[int(l.Hooks[hookForward])] = forward
	return starts
}

// rule returns what an entry says of packets.
func (e entry) rule(at int, starts map[int]string) rule {
	d := decision{}
	name := text(e.target()[extensionName:extensionRevision])
	switch v := e.verdict(); {
	case name != "":
		d.verdict = target(name)
	case v == legacyDrop:
		d.verdict = drops
	case v == legacyAccept:
		d.verdict = accepts
	case v == legacyReturn:
		d.verdict = returns
	case v < 0 || v == at+len(e): // a queue, or no target at all
	case e[entryFlags]&flagGoto != 0:
		d = decision{goes, starts[v]}
	default:
		d = decision{calls, starts[v]}
	}
	return func(p Packet) decision {
		if !e.matches(p) {
			return decision{}
		}
		return d
	}
}

// matches compares a packet with an entry as the kernel does (ip_packet_match), and with its extensions.
func (e entry) matches(p Packet) bool {
	inverted := func(bit byte) bool { return e[entryInverted]&bit != 0 }
	rest := ^byte(invertIn | invertOut | invertSource | invertDestination)
	switch {
	case e.short(entryProtocol) != 0 || e[entryFlags]&flagFragment != 0 || inverted(rest):
		return false
	case !masked(name(p.In), e[entryIn:][:linkSize], e[entryInMask:][:linkSize], inverted(invertIn)),
		!masked(name(p.Out), e[entryOut:][:linkSize], e[entryOutMask:][:linkSize], inverted(invertOut)),
		!masked(p.header(12, addressSize), e[entrySource:][:addressSize], e[entrySourceMask:][:addressSize], inverted(invertSource)),
		!masked(p.header(16, addressSize), e[entryDestination:][:addressSize], e[entryDestinationMask:][:addressSize], inverted(invertDestination)):
		return false
	}
	for at := entrySize; at < e.short(entryTarget); {
		extension := e[at:e.short(entryTarget)]
		if len(extension) < extensionInfo || extension.short(0) < extensionInfo || extension.short(0) > len(extension) {
			return false
		}
		if !legacyMatch(extension[:extension.short(0)], p) {
			return false
		}
		at += extension.short(0)
	}
	return true
}

// masked compares what a rule asks for with a value, of which nil is one that is not known: it matches only what asks for nothing.
func masked(value, want, mask []byte, invert bool) bool {
	same, asks := true, false
	for i, m := range mask {
		asks = asks || m != 0
		same = same && value != nil && (value[i]^want[i])&m == 0
	}
	if !asks || value == nil {
		return !asks && !invert
	}
	return same != invert
}

// legacyMatch is an extension: its name, its revision, and what it asks for.
func legacyMatch(e entry, p Packet) bool {
	const conntrackFlags, conntrackSize = 146, 156 // of struct xt_conntrack_mtinfo2 and 3: behind addresses, times, protocol and ports
	name, info := text(e[extensionName:extensionRevision]), e[extensionInfo:]
	if name == "conntrack" && e[extensionRevision] >= 2 && len(info) >= conntrackSize {
		return conntrack(uint16(info.short(conntrackFlags)), uint16(info.short(conntrackFlags+2)), uint16(info.short(conntrackFlags+4)), p)
	}
	return namedMatch(name, info, p)
}
