//go:build linux

package agent

import (
	"io"
	"net"
	"strings"
	"testing"

	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// TestLateConnectionTakesNothing: of a host's connections to a process the last that it made counts, in whatever order they come; another host's takes its place, and says so.
func TestLateConnectionTakesNothing(t *testing.T) {
	p, err := pretended(&wire.Exec{ID: "a", Argv: []string{"/bin/true"}})
	if err != nil {
		t.Fatal(err)
	}
	defer p.release()
	connect := func(nonce string, attempt uint64) (a *attachment, heard chan string) {
		host, agents := net.Pipe()
		heard = make(chan string, 1)
		go func() {
			text, _ := io.ReadAll(host)
			heard <- string(text)
		}()
		a = p.adopt(agents, &wire.Exec{ID: "a", Nonce: nonce, Attempt: attempt})
		if a == nil {
			agents.Close()
		}
		return a, heard
	}
	replaced := string(wire.Append(nil, wire.Replaced, nil))
	second, heardSecond := connect("mine", 2)
	late, heardLate := connect("mine", 1)
	if late != nil || !p.attachedTo(second) || <-heardLate != "" {
		t.Error("one that came late has taken the place of a later one")
	}
	third, heardThird := connect("mine", 3)
	if text := <-heardSecond; !p.attachedTo(third) || strings.HasSuffix(text, replaced) {
		t.Errorf("one that its host has left hears %q", text)
	}
	other, heardOther := connect("another's", 1)
	if text := <-heardThird; !p.attachedTo(other) || !strings.HasSuffix(text, replaced) {
		t.Errorf("one that another host replaced hears %q", text)
	}
	other.leave()
	<-heardOther
}
