//go:build linux

package agent

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/tangle-network/microvm-runtime/internal/wire"
)

func TestFramesThatMakeNoSenseCutTheConnection(t *testing.T) {
	h := newHost(t, Options{})
	input := func(n int) []byte { return wire.Append(nil, wire.Stdin, make([]byte, n)) }
	for i, tc := range []struct {
		name   string
		script string
		stdin  bool
		frames [][]byte
	}{
		{"a kind that is unknown", "cat", true, [][]byte{{200, 0, 0, 0, 0}}},
		{"kind 0", "cat", true, [][]byte{{0, 0, 0, 0, 0}}},
		{"the guest's kind", "cat", true, [][]byte{wire.Append(nil, wire.Stdout, []byte("a"))}},
		{"the guest's exit", "cat", true, [][]byte{wire.Append(nil, wire.Exited, []byte("{}"))}},
		{"a payload too long", "cat", true, [][]byte{{byte(wire.Stdin), 0, 1, 0, 1}}},
		{"an acknowledgement of what is not", "cat", true, [][]byte{wire.AppendAck(nil, wire.AckStdout, 5)}},
		{"the same of standard error", "cat", true, [][]byte{wire.AppendAck(nil, wire.AckStderr, 1<<63)}},
		{"an acknowledgement of 7 bytes", "cat", true, [][]byte{wire.Append(nil, wire.AckStdout, make([]byte, 7))}},
		{"input of which there is none", "cat", false, [][]byte{input(1)}},
		{"input after its end", "sleep 1000", true, [][]byte{wire.Append(nil, wire.StdinEnd, nil), input(1)}},
		{"more input than the window", "sleep 1000", true, slices.Repeat([][]byte{input(wire.MaxPayload)}, 6)},
		{"half a frame and then the hang-up", "cat", true, [][]byte{{byte(wire.Stdin), 0, 0, 0, 9, 'a'}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			id := fmt.Sprint("a", i)
			h := &host{t: t, server: h.server, path: h.path}
			s := h.exec(wire.Exec{ID: id, Argv: []string{"sh", "-c", "echo out; " + tc.script}, Stdin: tc.stdin})
			s.output(4)
			s.conn.Write(bytes.Join(tc.frames, nil)) // the agent may hang up before all is written
			if tc.name == "half a frame and then the hang-up" {
				s.conn.Close()
			} else {
				s.expectCut()
			}
			again := h.exec(wire.Exec{ID: id, Attach: true, Stdout: 4})
			again.send(wire.AppendAck(nil, wire.AckStdout, 4), wire.Append(nil, wire.StdinEnd, nil))
			if status, text := h.ask("POST", wire.PathSignal, "", fmt.Sprintf(`{"id": %q, "signal": 9}`, id)); status != 200 {
				t.Errorf("the process is lost: %s", text)
			}
			again.exit()
			again.sendFrame(wire.Done, "")
			if !until(func() bool { return h.process(id) == nil }) {
				t.Error("the process was not forgotten")
			}
		})
	}
}

func TestASecondAttachmentReplacesTheFirst(t *testing.T) {
	h := newHost(t, Options{})
	first := h.exec(wire.Exec{ID: "a", Argv: []string{"cat"}, Stdin: true})
	first.sendFrame(wire.Stdin, "one")
	if got := first.output(3); got != "one" {
		t.Errorf("%q", got)
	}
	second := h.exec(wire.Exec{ID: "a", Attach: true, Stdout: 3})
	if got := second.header.Get(wire.HeaderStdin); got != "3" {
		t.Errorf("input goes on from %s", got)
	}
	first.next(wire.Replaced)
	first.expectCut()
	second.sendFrame(wire.Stdin, "two")
	if got := second.output(3); got != "two" {
		t.Errorf("%q", got)
	}
	if status, text := h.ask("POST", wire.PathExec, wire.Upgrade, `{"id": "a", "attach": true, "stdout": 7}`); status != http.StatusGone {
		t.Errorf("what was never written: status %d, %s", status, text)
	}
	second.sendFrame(wire.Stdin, "still here")
	second.output(len("still here"))
	third := h.exec(wire.Exec{ID: "a", Attach: true})
	if got := third.output(6); !strings.HasPrefix(got, "onetwo") {
		t.Errorf("what was not acknowledged came as %q", got)
	}
	third.sendFrame(wire.StdinEnd, "")
	third.exit()
}

func TestAnAttachmentIsToldWhereItIs(t *testing.T) {
	h := newHost(t, Options{})
	first := h.exec(wire.Exec{ID: "a", Argv: []string{"sh", "-c", "cat; echo errors >&2; sleep 1000"}, Stdin: true})
	told := func(s *session) (a wire.Attached) {
		t.Helper()
		if err := json.Unmarshal([]byte(s.header.Get(wire.HeaderAttached)), &a); err != nil {
			t.Fatal(err)
		}
		return a
	}
	if got := told(first); got != (wire.Attached{StdinOpen: true}) {
		t.Errorf("at the beginning %+v", got)
	}
	first.sendFrame(wire.Stdin, "input")
	first.output(5)
	first.sendFrame(wire.StdinEnd, "")
	first.next(wire.Stderr)
	first.send(wire.AppendAck(nil, wire.AckStdout, 3))
	stdout := h.process("a").stdout
	if !until(func() bool { begin, _ := stdout.Kept(); return begin == 3 }) {
		t.Fatal("it does not hear what is acknowledged")
	}
	if status, text := h.ask("POST", wire.PathExec, wire.Upgrade, `{"id": "a", "attach": true}`); status != http.StatusGone || !strings.Contains(string(text), "standard output") {
		t.Errorf("what was acknowledged: status %d, %s", status, text)
	}
	second := h.exec(wire.Exec{ID: "a", Attach: true, Kept: true})
	if got := told(second); got != (wire.Attached{Stdin: 5, Stdout: 3}) {
		t.Errorf("what is kept: %+v", got)
	}
	if got := second.output(2); got != "ut" {
		t.Errorf("%q", got)
	}
}

// A host that does not read must not hold the next one up, nor get a frame that is no whole one.
func TestAHostThatReadsNothingIsReplaced(t *testing.T) {
	h := newHost(t, Options{})
	deaf := h.exec(wire.Exec{ID: "a", Argv: []string{"sh", "-c", "head -c 10000000 /dev/zero; sleep 1000"}})
	deaf.conn.(*net.UnixConn).SetReadBuffer(4096)
	out := h.process("a").stdout
	if !until(func() bool { return !out.Fits(1) }) {
		t.Fatal("the window is not full")
	}
	s := h.exec(wire.Exec{ID: "a", Attach: true})
	got := uint64(0)
	for got < 10_000_000 {
		got += uint64(len(s.next(wire.Stdout).Payload))
		s.send(wire.AppendAck(nil, wire.AckStdout, got))
	}
	deaf.expectCut()
}

// An older connection may still have frames under way.
func TestWhatAReplacedConnectionSaysIsIgnored(t *testing.T) {
	p := &process{stdout: wire.NewBuffer(0), stderr: wire.NewBuffer(0), input: wire.NewBuffer(0)}
	p.stdout.Write([]byte("out"))
	old, present := &attachment{process: p}, &attachment{process: p}
	p.attached = present
	frame := wire.Frame{Kind: wire.AckStdout, Payload: []byte{0, 0, 0, 0, 0, 0, 0, 3}}
	if p.take(old, frame) || p.attachedTo(old) {
		t.Error("the old one was listened to")
	}
	p.left(old)
	if !p.attachedTo(present) || !p.take(present, frame) {
		t.Error("the present one was not listened to")
	}
	if n, err := p.stdout.ReadAt(make([]byte, 1), 0, nil); err == nil {
		t.Errorf("%d bytes are there after the acknowledgement", n)
	}
}

func TestDoneBeforeTheEndLetsTheStreamsGo(t *testing.T) {
	h := newHost(t, Options{})
	s := h.exec(wire.Exec{ID: "a", Argv: []string{"sh", "-c", "trap '' PIPE; echo out; while echo more; do sleep 0.01; done 2>/dev/null"}})
	s.output(4)
	s.sendFrame(wire.Done, "")
	s.expectCut()
	if !until(func() bool { return h.process("a") == nil }) {
		t.Error("a process whose host has gone is kept after its end")
	}
}

func TestTheEndOfTheServerIsTheEndOfWhatTheHostLetGo(t *testing.T) {
	var pid int
	t.Run("server", func(t *testing.T) {
		h := newHost(t, Options{})
		s := h.exec(wire.Exec{ID: "a", Argv: []string{"sh", "-c", "echo out; sleep 1000"}})
		s.output(4)
		pid = h.process("a").child.pid
		s.sendFrame(wire.Done, "")
		s.expectCut()
	})
	if s, ok := readStat(pid); ok && !s.zombie {
		t.Error("it lives")
	}
}

// The last acknowledgements of a host's may find it gone, whose Done came before.
func TestDoneIsHeardThoughTheHostIsGone(t *testing.T) {
	h := newHost(t, Options{})
	for i := range 50 {
		id := fmt.Sprint("a", i)
		s := h.exec(wire.Exec{ID: id, Argv: []string{"true"}, Stdin: true})
		s.send(wire.Append(nil, wire.Stdin, make([]byte, wire.MaxPayload)), wire.Append(nil, wire.Stdin, make([]byte, wire.MaxPayload)))
		s.exit()
		s.send(wire.Append(nil, wire.Stdin, make([]byte, wire.MaxPayload)), wire.Append(nil, wire.Done, nil))
		s.conn.Close()
	}
	if !until(func() bool { return len(h.all()) == 0 }) {
		t.Errorf("%d processes are kept", len(h.all()))
	}
}

func (h *host) all() []string {
	h.server.mu.Lock()
	defer h.server.mu.Unlock()
	var ids []string
	for id := range h.server.processes {
		ids = append(ids, id)
	}
	return ids
}

// The process reads all the time, and each time the agent says so to who is attached.
func TestNoFrameComesBeforeTheAnswer(t *testing.T) {
	h := newHost(t, Options{})
	s := h.exec(wire.Exec{ID: "a", Argv: []string{"sh", "-c", "exec cat >/dev/null"}, Stdin: true})
	for range 200 {
		sent, err := strconv.ParseUint(s.header.Get(wire.HeaderStdin), 10, 64) // not all may have come before the connection was replaced
		if err != nil {
			t.Fatal(err)
		}
		for taken := uint64(0); sent-taken > wire.Window/2; {
			if taken, err = s.next(wire.AckStdin).Ack(); err != nil {
				t.Fatal(err)
			}
		}
		for range 10 {
			s.send(wire.Append(nil, wire.Stdin, make([]byte, 1000)))
		}
		s = h.exec(wire.Exec{ID: "a", Attach: true}) // fails when it is no answer
	}
}
