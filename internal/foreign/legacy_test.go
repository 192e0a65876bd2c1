//go:build linux

package foreign

import (
	"encoding/json"
	"net/netip"
	"os"
	"testing"

	"github.com/tangle-network/microvm-runtime/internal/unix"
)

// savedLegacy is what the kernel has of testdata/legacy.rules, which iptables-legacy-restore has loaded.
func savedLegacy(t testing.TB) legacy {
	t.Helper()
	content, err := os.ReadFile("testdata/legacy.json")
	if err != nil {
		t.Fatal(err)
	}
	var table unix.LegacyTable
	if err := json.Unmarshal(content, &table); err != nil {
		t.Fatal(err)
	}
	return legacy(table)
}

func TestLegacyRules(t *testing.T) {
	chain, err := savedLegacy(t).forward()
	if err != nil {
		t.Fatal(err)
	}
	public, private := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("10.1.2.3")
	for _, test := range []struct {
		name   string
		packet Packet
		by     string // Empty: it passes.
	}{
		{"from a guest", Packet{In: "mvm-2", Out: "wan0", Destination: public}, ""},
		{"from a guest to what is refused", Packet{In: "mvm-2", Out: "wan0", Destination: private}, "rule 1 of chain guests drops it"},
		{"from a guest to nobody knows where", Packet{In: "mvm-2", Out: "wan0"}, ""},
		{"from the guest that goes back", Packet{In: "mvm-1", Out: "wan0", Destination: public}, "its policy drops it"},
		{"from elsewhere", Packet{In: "wan0", Out: "wan1", Destination: private}, "its policy drops it"},
		{"an answer", Packet{In: "wan0", Out: "wan1", Established: true}, ""},
		{"an answer that comes back", Packet{In: "wan0", Out: "lan1", Established: true}, "its policy drops it"},
		{"to a published port", Packet{In: "wan0", Out: "mvm-1", DNAT: true}, ""},
		{"to another", Packet{In: "wan0", Out: "mvm-1"}, "its policy drops it"},
		{"by its source", Packet{In: "wan1", Out: "wan0", Source: netip.MustParseAddr("192.168.7.7")}, ""},
		{"by its source, from the wrong link", Packet{In: "wan0", Out: "wan1", Source: netip.MustParseAddr("192.168.7.7")}, "its policy drops it"},
		{"by another source", Packet{In: "wan1", Out: "wan0", Source: public}, "its policy drops it"},
		{"an inverted destination", Packet{In: "wan0", Out: "lan0", Destination: public}, "rule 6 of chain FORWARD drops it"},
		{"that destination", Packet{In: "lan0", Out: "lan0", Destination: private}, ""},
		{"behind a target that goes on", Packet{In: "lan0", Out: "wan0"}, ""},
		{"of which nothing is known", Packet{}, "its policy drops it"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if j := chain.Judge(test.packet); j.Dropped != (test.by != "") || j.By != test.by {
				t.Errorf("%+v, want %q", j, test.by)
			}
		})
	}
}

// TestTornLegacyTables: what ends within an entry, or before the policy, is refused.
func TestTornLegacyTables(t *testing.T) {
	whole := savedLegacy(t)
	_, order, err := whole.entries()
	if err != nil {
		t.Fatal(err)
	}
	taken := 0
	for length := range len(whole.Entries) {
		torn := whole
		torn.Entries = whole.Entries[:length]
		if _, err := torn.forward(); err == nil {
			taken++
		}
	}
	behind := 0 // entries that begin behind the policy: a table may end before each
	for _, at := range order {
		if at > int(whole.Policies[hookForward]) {
			behind++
		}
	}
	if taken != behind || behind == 0 {
		t.Errorf("%d lengths were taken, want %d", taken, behind)
	}
}

func FuzzLegacy(f *testing.F) {
	whole := savedLegacy(f)
	f.Add(whole.Entries, whole.Hooks[hookForward], whole.Policies[hookForward])
	f.Fuzz(func(_ *testing.T, entries []byte, hook, policy uint32) {
		l := legacy{Entries: entries}
		l.Hooks[hookForward], l.Policies[hookForward] = hook, policy
		if chain, err := l.forward(); err == nil {
			chain.Judge(some)
			chain.Judge(Packet{})
		}
	})
}
