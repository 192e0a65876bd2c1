//go:build linux

package agent

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// upgrade makes a request after which frames follow.
func (h *host) upgrade(path string, body any) *session {
	h.t.Helper()
	conn := h.dial()
	text, err := json.Marshal(body)
	if err != nil {
		h.t.Fatal(err)
	}
	fmt.Fprint(conn, post(path, "Connection: Upgrade\r\nUpgrade: "+wire.Upgrade+"\r\n", string(text)))
	in := bufio.NewReader(conn)
	response, err := http.ReadResponse(in, nil)
	if err != nil {
		h.t.Fatal(err)
	}
	if response.StatusCode != http.StatusSwitchingProtocols {
		h.t.Fatalf("%s: status %d", path, response.StatusCode)
	}
	return &session{t: h.t, conn: conn, header: response.Header, in: wire.NewReader(in)}
}

func (h *host) refused(path, body, code string) {
	h.t.Helper()
	_, text := h.ask("POST", path, wire.Upgrade, body)
	var e wire.Error
	if err := json.Unmarshal(text, &e); err != nil || e.Code != code {
		h.t.Errorf("%s %s: %s, want %s", path, body, text, code)
	}
}

// target listens for one connection.
func target(t *testing.T) (path string, accept func() *net.UnixConn) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "target")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	return path, func() *net.UnixConn {
		conn, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		conn.SetDeadline(time.Now().Add(patience))
		t.Cleanup(func() { conn.Close() })
		return conn.(*net.UnixConn)
	}
}

func TestFramesThatAreNoTunnelsCutIt(t *testing.T) {
	h := newHost(t, Options{})
	path, accept := target(t)
	for name, frames := range map[string][]byte{
		"of a process":  wire.Append(nil, wire.Stdin, []byte("a")),
		"none":          []byte("GET / HTTP/1.1\r\n"),
		"after the end": wire.Append(wire.Append(nil, wire.DataEnd, nil), wire.Data, []byte("a")),
	} {
		t.Run(name, func(t *testing.T) {
			s := h.upgrade(wire.PathDial, wire.Dial{Target: path})
			conn := accept()
			s.sendFrame(wire.Data, "good")
			if _, err := io.ReadFull(conn, make([]byte, 4)); err != nil {
				t.Fatal(err)
			}
			s.send(frames)
			s.expectCut()
			if got, _ := io.ReadAll(conn); len(got) > 0 {
				t.Errorf("the target got %q", got)
			}
		})
	}
}

func TestTheHostClosesATunnelFirst(t *testing.T) {
	h := newHost(t, Options{})
	path, accept := target(t)
	s := h.upgrade(wire.PathDial, wire.Dial{Target: path})
	conn := accept()
	s.sendFrame(wire.DataEnd, "")
	conn.Write([]byte("late"))
	conn.Close()
	if got := string(s.next(wire.Data).Payload); got != "late" {
		t.Errorf("%q", got)
	}
	s.next(wire.DataEnd)
	s.conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if _, err := s.in.Read(); !isTimeout(err) {
		t.Errorf("the agent closes what the host may not have read: %v", err)
	}
	s.conn.Close()
	if !until(func() bool { h.server.mu.Lock(); defer h.server.mu.Unlock(); return h.server.tunnels == 0 }) {
		t.Error("the tunnel stays")
	}
}

func isTimeout(err error) bool {
	e := net.Error(nil)
	return errors.As(err, &e) && e.Timeout()
}

func TestTunnelsAreBounded(t *testing.T) {
	h := newHost(t, Options{})
	path, _ := target(t)
	body := fmt.Sprintf(`{"target": %q}`, path)
	set := func(n int) { h.server.mu.Lock(); h.server.tunnels += n; h.server.mu.Unlock() }
	set(wire.MaxTunnels)
	h.refused(wire.PathDial, body, wire.CodeBusy)
	h.refused(wire.PathAccept, `{"id":"a","number":1}`, wire.CodeBusy)
	set(-1)
	h.upgrade(wire.PathDial, wire.Dial{Target: path})
	h.refused(wire.PathDial, body, wire.CodeBusy)
	set(1 - wire.MaxTunnels)
}

func TestTunnelRefusals(t *testing.T) {
	h := newHost(t, Options{})
	for _, tc := range [][3]string{
		{wire.PathDial, `{"target": "a"}`, wire.CodeInvalid}, {wire.PathDial, `{"target": "/a\u0000"}`, wire.CodeInvalid}, {wire.PathDial, `{`, wire.CodeInvalid},
		{wire.PathListen, `{"id": "a", "address": "a"}`, wire.CodeInvalid}, {wire.PathListen, `{"id": "../a", "address": "127.0.0.1:1"}`, wire.CodeInvalid},
		{wire.PathAccept, `{"id": "a", "number": 1}`, wire.CodeNotFound},
	} {
		h.refused(tc[0], tc[1], tc[2])
	}
	for _, path := range []string{wire.PathDial, wire.PathListen, wire.PathAccept} {
		if status, text := h.ask("POST", path, "", `{"id": "a", "target": "127.0.0.1:1", "address": "127.0.0.1:1"}`); status != 400 || !strings.Contains(string(text), "Upgrade") {
			t.Errorf("%s without upgrade: %d, %s", path, status, text)
		}
	}
}

// TestWhatComesWaitsForTheHost is a backlog that is full, and its end.
func TestWhatComesWaitsForTheHost(t *testing.T) {
	h := newHost(t, Options{})
	path := filepath.Join(t.TempDir(), "listener")
	s := h.upgrade(wire.PathListen, wire.Listen{ID: "a", Address: path})
	h.refused(wire.PathListen, `{"id": "a", "address": "/tmp/b"}`, wire.CodeExists)
	h.refused(wire.PathListen, fmt.Sprintf(`{"id": "b", "address": %q}`, path), wire.CodeExists)
	var conns []net.Conn
	for range wire.MaxIncoming + 1 {
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		conn.SetDeadline(time.Now().Add(patience))
		defer conn.Close()
		conns = append(conns, conn)
	}
	for want := range uint64(wire.MaxIncoming) {
		if got, err := s.next(wire.Incoming).Number(); err != nil || got != want+1 {
			t.Fatalf("number %d, %v; want %d", got, err, want+1)
		}
	}
	s.conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if _, err := s.in.Read(); !isTimeout(err) {
		t.Fatalf("more than the backlog is told: %v", err)
	}
	s.conn.SetReadDeadline(time.Now().Add(patience))
	first := h.upgrade(wire.PathAccept, wire.Accept{ID: "a", Number: 1})
	h.refused(wire.PathAccept, `{"id": "a", "number": 1}`, wire.CodeGone)
	if got, _ := s.next(wire.Incoming).Number(); got != wire.MaxIncoming+1 {
		t.Errorf("the next is %d", got)
	}
	s.conn.Close()
	for i, conn := range conns[1:] {
		if _, err := conn.Read(make([]byte, 1)); err == nil || isTimeout(err) {
			t.Fatalf("connection %d, which nobody took: %v", i+1, err)
		}
	}
	conns[0].Write([]byte("lives"))
	if got := string(first.next(wire.Data).Payload); got != "lives" {
		t.Errorf("%q", got)
	}
	if _, err := net.Dial("unix", path); !errors.Is(err, syscall.ENOENT) && !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("after the end: %v", err)
	}
	if !until(func() bool { h.server.mu.Lock(); defer h.server.mu.Unlock(); return len(h.server.listeners) == 0 }) {
		t.Error("the listener stays")
	}
}
