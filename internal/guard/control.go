//go:build linux

package guard

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"net/netip"
	"time"
)

const (
	answerPatience = 5 * time.Second // what a question and its answer may take
	maxAnswer      = 1 << 20
)

// question is one line of JSON from a client; the answer is one too.
type question struct {
	Do      string     `json:"do"` // "sync" or "denied".
	Address netip.Addr `json:"address"`
}

type answer struct {
	Error  string            `json:"error,omitempty"`
	Denied map[string]uint64 `json:"denied,omitempty"`
}

// answer serves clients until the socket is closed.
func (s *Server) answer() {
	for {
		conn, err := s.control.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(50 * time.Millisecond) // such as too many open files
			continue
		}
		s.serving.Go(func() {
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(answerPatience))
			var q question
			if json.NewDecoder(io.LimitReader(conn, maxAnswer)).Decode(&q) == nil {
				json.NewEncoder(conn).Encode(s.do(q))
			}
		})
	}
}

func (s *Server) do(q question) (a answer) {
	var err error
	switch q.Do {
	case "sync":
		err = s.sync(q.Address)
	case "denied":
		a.Denied, err = s.deniedOf(q.Address)
	default:
		err = fmt.Errorf("unknown question %q", q.Do)
	}
	if err != nil {
		a.Error = err.Error()
	}
	return a
}

// sync opens or closes the machine's gate as its entry says. Of one without an entry nothing stays.
func (s *Server) sync(address netip.Addr) error {
	m, err := s.machine(address)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	m.gating.Lock()
	defer m.gating.Unlock()
	m.mu.Lock()
	verify := m.entry.VerifySNI
	m.mu.Unlock()
	switch {
	case verify && m.gate == nil:
		return m.openGate()
	case !verify && m.gate != nil:
		err := m.gate.Close()
		m.gate = nil
		return err
	}
	return nil
}

func (s *Server) deniedOf(address netip.Addr) (map[string]uint64, error) {
	m, err := s.machine(address)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.denied), nil
}

// Client speaks to the guard of a directory.
type Client struct{ Dir string }

// Sync has the guard look at a machine's entry: when it returns nil, the machine's gate is as the entry says. An error of the network is of a guard that does not live.
func (c Client) Sync(ctx context.Context, address netip.Addr) error {
	_, err := c.ask(ctx, question{"sync", address})
	return err
}

// Denied returns the names that were denied to a machine, and the addresses that allowed names have led to and no name opens, and how often each.
func (c Client) Denied(ctx context.Context, address netip.Addr) (map[string]uint64, error) {
	a, err := c.ask(ctx, question{"denied", address})
	return a.Denied, err
}

func (c Client) ask(ctx context.Context, q question) (a answer, err error) {
	ctx, cancel := context.WithTimeout(ctx, answerPatience)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socketPath(c.Dir))
	if err != nil {
		return a, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := json.NewEncoder(conn).Encode(q); err != nil {
		return a, err
	}
	if err := json.NewDecoder(io.LimitReader(conn, maxAnswer)).Decode(&a); err != nil {
		return a, fmt.Errorf("guard's answer: %w", err)
	}
	if a.Error != "" {
		return a, errors.New("guard: " + a.Error)
	}
	return a, nil
}
