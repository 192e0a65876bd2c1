//go:build linux

package agent

import (
	"fmt"
	"slices"
	"testing"

	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// TestAHostThatHasGoneIsForgotten: what it started is signalled and forgotten, what another started is neither, and what of it comes late starts nothing.
func TestAHostThatHasGoneIsForgotten(t *testing.T) {
	h := newHost(t, Options{})
	start := func(nonce string) (int, []byte) {
		return h.ask("POST", wire.PathExec, "", fmt.Sprintf(`{"id": "a", "nonce": %q, "argv": ["sleep", "1000"], "detached": true}`, nonce))
	}
	forget := func(nonce string) (int, []byte) {
		return h.ask("POST", wire.PathSignal, "", fmt.Sprintf(`{"id": "a", "signal": 9, "forget": %q}`, nonce))
	}
	known := func() []wire.Process { return h.server.listed() }
	if status, text := start("mine"); status != 200 {
		t.Fatal(status, text)
	}
	if status, text := forget("another"); status != 404 || len(known()) != 1 || known()[0].Exit != nil {
		t.Errorf("the host of another start: %d, %s; known are %+v", status, text, known())
	}
	if status, text := forget("mine"); status != 200 || len(known()) != 0 {
		t.Errorf("its own: %d, %s; known are %+v", status, text, known())
	}
	for _, nonce := range []string{"mine", "another"} {
		if status, text := start(nonce); status != 410 || len(known()) != 0 {
			t.Errorf("a start that comes late: %d, %s", status, text)
		}
	}
}

// TestForgettingIsBounded: of hosts that have gone the latest are kept.
func TestForgettingIsBounded(t *testing.T) {
	s := New(Options{})
	for i := range 2 * maxForgotten {
		s.signalled(&wire.Signal{ID: "a", Signal: 9, Forget: fmt.Sprint("n", i)})
	}
	if len(s.forgotten) != maxForgotten || slices.Contains(s.forgotten, "n0") || !slices.Contains(s.forgotten, fmt.Sprint("n", 2*maxForgotten-1)) {
		t.Errorf("%d are kept: %q", len(s.forgotten), s.forgotten)
	}
}
