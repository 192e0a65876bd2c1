//go:build linux

package agent

import (
	"net/http"
	"strings"
	"testing"

	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// reads reads standard output until it contains the text.
func (s *session) reads(text string) {
	s.t.Helper()
	var got strings.Builder
	for !strings.Contains(got.String(), text) {
		got.Write(s.next(wire.Stdout).Payload)
	}
}

func TestATerminalHangsUpWhenItsHostIsDone(t *testing.T) {
	h := newHost(t, Options{})
	s := h.exec(wire.Exec{ID: "a", TTY: &wire.TTY{Rows: 2, Cols: 3}, Argv: []string{"sh", "-c", "stty size; exec sleep 1000"}})
	s.reads("2 3\r\n")
	pid := h.process("a").child.pid
	s.sendFrame(wire.Done, "")
	s.expectCut()
	if !until(func() bool { return h.process("a") == nil }) {
		t.Error("it was not hung up")
	}
	if s, ok := readStat(pid); ok && !s.zombie {
		t.Error("it lives")
	}
	pipes := h.exec(wire.Exec{ID: "b", Argv: []string{"sh", "-c", "echo out; exec sleep 1000"}})
	pipes.reads("out")
	pid = h.process("b").child.pid
	pipes.sendFrame(wire.Done, "")
	pipes.expectCut()
	if s, ok := readStat(pid); !ok || s.zombie {
		t.Error("without a terminal there is nothing to hang up")
	}
}

func TestFramesOfATerminal(t *testing.T) {
	h := newHost(t, Options{})
	for name, frame := range map[string][]byte{
		"a size of 3 bytes": wire.Append(nil, wire.Resize, []byte{0, 1, 0}), "a size of 5 bytes": wire.Append(nil, wire.Resize, make([]byte, 5)),
		"an acknowledgement of errors": wire.AppendAck(nil, wire.AckStderr, 1),
	} {
		s := h.exec(wire.Exec{ID: "a", TTY: &wire.TTY{}, Argv: []string{"cat"}})
		s.send(frame)
		t.Log(name)
		s.expectCut()
	}
	pipes := h.exec(wire.Exec{ID: "b", Argv: []string{"sleep", "1000"}})
	pipes.send(wire.AppendResize(nil, wire.TTY{Rows: 1, Cols: 1}))
	pipes.expectCut()
	if status, text := h.ask("POST", wire.PathExec, wire.Upgrade, `{"id": "b", "attach": true, "tty": {"rows": 1, "cols": 1}}`); status != http.StatusBadRequest {
		t.Errorf("a terminal of what has none: %d, %s", status, text)
	}
	if status, text := h.ask("POST", wire.PathExec, wire.Upgrade, `{"id": "c", "argv": ["true"], "tty": {"rows": 65536, "cols": -1}}`); status != http.StatusBadRequest {
		t.Errorf("a size that is none: %d, %s", status, text)
	}
	s := h.exec(wire.Exec{ID: "a", Attach: true, Kept: true})
	s.send(wire.Append(nil, wire.StdinEnd, nil), wire.AppendResize(nil, wire.TTY{Rows: 5, Cols: 6}), wire.Append(nil, wire.Stdin, []byte("after the end\n")))
	s.reads("after the end\r\nafter the end\r\n")
	s.sendFrame(wire.Stdin, "\x04")
	s.next(wire.StdoutEnd)
	if exit := s.exit(); exit.Code != 0 {
		t.Errorf("%+v", exit)
	}
}

func TestHostATerminalIsItsUsers(t *testing.T) {
	ring.Host(t)
	h := newHost(t, Options{})
	s := h.exec(wire.Exec{ID: "a", TTY: &wire.TTY{Rows: 1, Cols: 1}, User: "nobody", Argv: []string{"sh", "-c", `id -un; stat -c '%U' "$(tty)"; echo yes > "$(tty)"`}})
	s.reads("nobody\r\nnobody\r\nyes\r\n")
	if exit := s.exit(); exit.Code != 0 {
		t.Errorf("%+v", exit)
	}
}

// TestASizeAfterTheEnd: a host repeats the size on each connection, also when the process has ended meanwhile. That ends no connection.
func TestASizeAfterTheEnd(t *testing.T) {
	h := newHost(t, Options{})
	s := h.exec(wire.Exec{ID: "a", Argv: []string{"true"}, TTY: &wire.TTY{Rows: 24, Cols: 80}})
	s.exit()
	s.send(wire.AppendResize(nil, wire.TTY{Rows: 10, Cols: 10}), wire.Append(nil, wire.Done, nil))
	s.expectCut()
	eventually(t, "the agent has heard that the host has all", func() bool { return h.process("a") == nil })
}
