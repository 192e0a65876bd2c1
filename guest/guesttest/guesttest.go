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
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/tangle-network/microvm-runtime/internal/agent"
	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// Agent is an agent that runs until its test ends.
type Agent struct {
	path, metadata string
	secrets        string

	mu    sync.Mutex
	conns map[*conn]bool
}

// New starts an agent for the test.
func New(t testing.TB) *Agent {
	t.Helper()
	dir := t.TempDir()
	a := &Agent{path: filepath.Join(dir, "agent"), metadata: filepath.Join(dir, "metadata"), secrets: memory(t), conns: map[*conn]bool{}}
	server := agent.New(agent.Options{Secrets: a.secrets})
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 2)
	for path, serve := range map[string]func(context.Context, net.Listener) error{a.path: server.Serve, a.metadata: server.ServeMetadata} {
		listener, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		go func() { done <- serve(ctx, listener) }()
	}
	t.Cleanup(func() {
		stop()
		if err := errors.Join(<-done, <-done); err != nil {
			t.Error(err)
		}
	})
	return a
}

// memory returns a directory of memory, which is removed with the test; none where the host has no such place.
func memory(t testing.TB) string {
	dir, err := os.MkdirTemp("/dev/shm", "microvm-guesttest-")
	if err != nil {
		return ""
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "secrets")
}

// Secrets returns the directory in whose place a guest has /run/microvm/secrets. It is empty where the host has no /dev/shm: then the agent denies secrets.
func (a *Agent) Secrets() string { return a.secrets }

// Dial connects to the agent's ports, 1024 and 5555; nobody listens on any other.
func (a *Agent) Dial(ctx context.Context, port uint32) (net.Conn, error) {
	path, ok := map[uint32]string{wire.Port: a.path, wire.MetadataPort: a.metadata}[port]
	if !ok {
		return nil, fmt.Errorf("port %d: %w", port, syscall.ECONNREFUSED)
	}
	c, err := new(net.Dialer).DialContext(ctx, "unix", path)
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
