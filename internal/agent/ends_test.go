//go:build linux

package agent

import (
	"strings"
	"testing"

	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// TestAnEndIsToldWhileTheProcessGoesOn: ends wait for each other and for the exit, but not for long.
func TestAnEndIsToldWhileTheProcessGoesOn(t *testing.T) {
	h := newHost(t, Options{})
	s := h.exec(wire.Exec{ID: "a", Argv: []string{"sh", "-c", "echo last; exec >&-; read line; echo err >&2; exec 2>&-; read line; exit 3"}, Stdin: true})
	if got := s.output(5); got != "last\n" {
		t.Errorf("%q", got)
	}
	s.next(wire.StdoutEnd)
	s.sendFrame(wire.Stdin, "\n")
	if f := s.next(wire.Stderr); string(f.Payload) != "err\n" {
		t.Errorf("%q", f.Payload)
	}
	s.next(wire.StderrEnd)
	s.sendFrame(wire.Stdin, "\n")
	if e := s.exit(); e.Code != 3 {
		t.Errorf("%+v", e)
	}
}

// TestInputIsAcknowledgedLongBeforeTheWindowIsFull, and not piece by piece; a host that comes again hears of every byte.
func TestInputIsAcknowledgedLongBeforeTheWindowIsFull(t *testing.T) {
	h := newHost(t, Options{})
	s := h.exec(wire.Exec{ID: "a", Argv: []string{"cat"}, Stdin: true})
	const part = 4 << 10
	sent, acked := 0, uint64(0)
	for acked == 0 && sent < wire.Window/2 {
		s.sendFrame(wire.Stdin, strings.Repeat("x", part))
		sent += part
		for got := 0; got < part && acked == 0; { // each part on its own: cat has read it
			f := s.next(wire.Stdout, wire.AckStdin)
			if f.Kind == wire.Stdout {
				got += len(f.Payload)
				continue
			}
			var err error
			if acked, err = f.Ack(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if acked < wire.Window/4 || acked > uint64(sent) {
		t.Errorf("%d bytes are acknowledged of %d", acked, sent)
	}
	s.conn.Close()
	again := h.exec(wire.Exec{ID: "a", Argv: []string{"cat"}, Stdin: true, Attach: true, Kept: true})
	if offset, err := again.next(wire.AckStdin).Ack(); err != nil || offset < acked || offset > uint64(sent) {
		t.Errorf("%d bytes are acknowledged of %d, %v; it was %d", offset, sent, err, acked)
	}
}
