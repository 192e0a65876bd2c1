//go:build linux

package guard

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/netip"

	"github.com/tangle-network/microvm-runtime/internal/helper"
)

// question is what a guard is asked.
type question struct {
	Do      string     `json:"do"` // "sync" or "denied".
	Address netip.Addr `json:"address"`
}

type answer struct {
	Denied map[string]uint64 `json:"denied,omitempty"`
}

func (s *Server) answer(q question) (a answer, err error) {
	switch q.Do {
	case "sync":
		err = s.sync(q.Address)
	case "denied":
		a.Denied, err = s.deniedOf(q.Address)
	default:
		err = fmt.Errorf("unknown question %q", q.Do)
	}
	return a, err
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

func (c Client) ask(ctx context.Context, q question) (answer, error) {
	dial := func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socketPath(c.Dir))
	}
	return helper.Ask[answer](ctx, "guard", dial, q)
}
