//go:build linux

package agent

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// host speaks to an agent over a socket, byte by byte where it must.
type host struct {
	t      *testing.T
	server *Server
	path   string
}

func newHost(t *testing.T, options Options) *host {
	t.Helper()
	listener, err := net.Listen("unix", filepath.Join(t.TempDir(), "agent"))
	if err != nil {
		t.Fatal(err)
	}
	return newHostOn(t, options, listener)
}

func newHostOn(t *testing.T, options Options, listener net.Listener) *host {
	t.Helper()
	h := &host{t: t, server: New(options), path: listener.Addr().String()}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.server.Serve(ctx, listener) }()
	t.Cleanup(func() {
		stop()
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(patience):
			t.Error("the server does not end")
		}
	})
	return h
}

func (h *host) dial() net.Conn {
	h.t.Helper()
	conn, err := net.Dial("unix", h.path)
	if err != nil {
		h.t.Fatal(err)
	}
	conn.SetDeadline(time.Now().Add(patience))
	h.t.Cleanup(func() { conn.Close() })
	return conn
}

// ask sends a request and returns the status and the body.
func (h *host) ask(method, path, upgrade, body string) (int, []byte) {
	h.t.Helper()
	conn := h.dial()
	defer conn.Close()
	request, err := http.NewRequest(method, "http://agent"+path, strings.NewReader(body))
	if err != nil {
		h.t.Fatal(err)
	}
	if upgrade != "" {
		request.Header.Set("Upgrade", upgrade)
	}
	if err := request.Write(conn); err != nil {
		h.t.Fatal(err)
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), request)
	if err != nil {
		h.t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode == http.StatusSwitchingProtocols {
		return response.StatusCode, nil
	}
	text, err := io.ReadAll(response.Body)
	if err != nil {
		h.t.Fatal(err)
	}
	return response.StatusCode, text
}

// session is a connection that has become frames.
type session struct {
	t      *testing.T
	conn   net.Conn
	header http.Header
	in     *wire.Reader
}

func (h *host) exec(e wire.Exec) *session {
	h.t.Helper()
	conn := h.dial()
	body, err := json.Marshal(e)
	if err != nil {
		h.t.Fatal(err)
	}
	request, err := http.NewRequest("POST", "http://agent"+wire.PathExec, bytes.NewReader(body))
	if err != nil {
		h.t.Fatal(err)
	}
	request.Header.Set("Upgrade", wire.Upgrade)
	if err := request.Write(conn); err != nil {
		h.t.Fatal(err)
	}
	in := bufio.NewReader(conn)
	response, err := http.ReadResponse(in, request)
	if err != nil {
		h.t.Fatal(err)
	}
	if response.StatusCode != http.StatusSwitchingProtocols {
		text, _ := io.ReadAll(response.Body)
		h.t.Fatalf("status %d: %s", response.StatusCode, text)
	}
	return &session{t: h.t, conn: conn, header: response.Header, in: wire.NewReader(in)}
}

func (s *session) send(frames ...[]byte) {
	s.t.Helper()
	if _, err := s.conn.Write(bytes.Join(frames, nil)); err != nil {
		s.t.Fatal(err)
	}
}

func (s *session) sendFrame(kind wire.Kind, payload string) {
	s.t.Helper()
	s.send(wire.Append(nil, kind, []byte(payload)))
}

// next returns the next frame of one of the kinds, and passes over all others.
func (s *session) next(kinds ...wire.Kind) wire.Frame {
	s.t.Helper()
	for {
		f, err := s.in.Read()
		if err != nil {
			s.t.Fatalf("waiting for kinds %v: %v", kinds, err)
		}
		if slices.Contains(kinds, f.Kind) {
			return f
		}
	}
}

// output reads so many bytes of standard output.
func (s *session) output(n int) string {
	s.t.Helper()
	var got []byte
	for len(got) < n {
		got = append(got, s.next(wire.Stdout).Payload...)
	}
	return string(got)
}

// exit reads to the end.
func (s *session) exit() (e wire.Exit) {
	s.t.Helper()
	if err := json.Unmarshal(s.next(wire.Exited).Payload, &e); err != nil {
		s.t.Fatal(err)
	}
	return e
}

// expectCut reads until the agent has ended the connection.
func (s *session) expectCut() {
	s.t.Helper()
	s.untilCut()
}

// untilCut is expectCut, and returns how many bytes of standard output came.
func (s *session) untilCut() (stdout int) {
	s.t.Helper()
	for {
		f, err := s.in.Read()
		if e := net.Error(nil); errors.As(err, &e) && e.Timeout() {
			s.t.Fatal("the agent keeps the connection")
		}
		if err != nil {
			return stdout
		}
		if f.Kind == wire.Stdout {
			stdout += len(f.Payload)
		}
	}
}

func (h *host) process(id string) *process {
	h.server.mu.Lock()
	defer h.server.mu.Unlock()
	return h.server.processes[id]
}
