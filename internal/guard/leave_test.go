//go:build linux

package guard

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/testing/netlab"
)

// TestHostGrantsEndWithTheMachine: a question that is still being answered when its machine goes opens nothing for the one that has the slot next.
func TestHostGrantsEndWithTheMachine(t *testing.T) {
	w := newWorld(t)
	for range 5 {
		w.set(false, "example.com")
		policy, ok := w.server.Policy(w.slot.Addresses.Slot)
		if !ok {
			t.Fatal("no policy")
		}
		if err := policy.Grant(w.rules[0].ID, netlab.Other, time.Minute); err != nil {
			t.Fatal(err)
		}
		if err := Remove(w.dir, w.slot.Addresses.Slot); err != nil {
			t.Fatal(err)
		}
		if err := (Client{w.dir}).Sync(t.Context(), w.slot.Addresses.Slot); err != nil {
			t.Fatal(err)
		}
		if err := policy.Grant(w.rules[0].ID, netlab.Echo, time.Minute); !errors.Is(err, errGone) {
			t.Fatalf("a machine that is gone opens an address: %v", err)
		}
	}
}

// TestHostGrantsLiveAsLongAsTheLongest: an address that two names share is the gate's as long as the longer answer lives.
func TestHostGrantsLiveAsLongAsTheLongest(t *testing.T) {
	w := newWorld(t)
	w.set(true, "*.example.com:443")
	policy, ok := w.server.Policy(w.slot.Addresses.Slot)
	if !ok {
		t.Fatal("no policy")
	}
	for _, ttl := range []time.Duration{time.Hour, time.Nanosecond} {
		if err := policy.Grant(w.rules[0].ID, netlab.Web, ttl); err != nil {
			t.Fatal(err)
		}
	}
	m := w.server.machines[w.slot.Addresses.Slot]
	if !m.allows("www.example.com", netip.AddrPortFrom(netlab.Web, 443)) {
		t.Error("the shorter answer has ended the longer one")
	}
	if m.allows("www.example.com", netip.AddrPortFrom(netlab.Other, 443)) {
		t.Error("an address that was no answer is allowed")
	}
}
