//go:build linux

// Package guesttest is a guest agent within this process, for tests of code that uses package guest: commands run on this machine, as this user.
//
// There is only one type: an [Agent] is a guest.Dialer, whose connections can be cut.
//
// # Caveats
//
// It isolates nothing: what a test executes, it executes here.
package guesttest

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/tangle-network/microvm-runtime/internal/agent"
	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// Agent is an agent that runs until its test ends.
type Agent struct {
	path string

	mu    sync.Mutex
	conns map[*conn]bool
}

// New starts an agent for the test.
func New(t testing.TB) *Agent {
	t.Helper()
	a := &Agent{path: filepath.Join(t.TempDir(), "agent"), conns: map[*conn]bool{}}
	listener, err := net.Listen("unix", a.path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- agent.New(agent.Options{}).Serve(ctx, listener) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return a
}

// Dial connects to the agent's port; nobody listens on any other.
func (a *Agent) Dial(ctx context.Context, port uint32) (net.Conn, error) {
	if port != wire.Port {
		return nil, fmt.Errorf("port %d: %w", port, syscall.ECONNREFUSED)
	}
	c, err := new(net.Dialer).DialContext(ctx, "unix", a.path)
	if err != nil {
		return nil, err
	}
	tracked := &conn{Conn: c, agent: a}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.conns[tracked] = true
	return tracked, nil
}

// Cut breaks all connections, as a snapshot does, and returns how many there were.
func (a *Agent) Cut() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := len(a.conns)
	for c := range a.conns {
		c.Conn.Close()
	}
	clear(a.conns)
	return n
}

// conn is forgotten when it is closed.
type conn struct {
	net.Conn
	agent *Agent
}

func (c *conn) Close() error {
	c.agent.mu.Lock()
	defer c.agent.mu.Unlock()
	delete(c.agent.conns, c)
	return c.Conn.Close()
}
