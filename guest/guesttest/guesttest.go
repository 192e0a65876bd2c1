//go:build linux

// Package guesttest is a guest agent within this process, for tests of code that uses package guest: commands run on this machine, as this user.
//
// There are only two types: an [Agent] is a guest.Dialer, whose connections can be cut, and a [System] is what it has been asked to make of a system that is none. With package inmemory it makes the whole of a machine within a test: the example does that.
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

// Agent is an agent that runs until its test ends, or Close.
type Agent struct {
	dir            string
	path, metadata string
	secrets        string
	stop           context.CancelFunc
	done           chan error
	server         *agent.Server
	system         *System

	mu    sync.Mutex
	conns map[*conn]bool
}

// New starts an agent for the test.
func New(t testing.TB) *Agent {
	t.Helper()
	a, err := Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	})
	return a
}

// Start is New where there is no testing.TB, as in an example or a TestMain: Close must be called.
func Start() (_ *Agent, err error) {
	dir, err := os.MkdirTemp("", "microvm-guesttest-")
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	a := &Agent{
		dir: dir, path: filepath.Join(dir, "agent"), metadata: filepath.Join(dir, "metadata"), secrets: memory(), stop: stop, conns: map[*conn]bool{}, done: make(chan error, 2),
	}
	a.system = newSystem(a)
	server := agent.New(agent.Options{Secrets: a.secrets, System: a.system.forAgent()})
	a.server = server
	if err := a.system.makeRoot(); err != nil {
		stop()
		a.remove()
		return nil, err
	}
	var listeners [2]net.Listener
	for i, path := range []string{a.path, a.metadata} {
		if listeners[i], err = net.Listen("unix", path); err != nil {
			if i > 0 {
				listeners[0].Close()
			}
			stop()
			a.remove()
			return nil, err
		}
	}
	go func() { a.done <- server.Serve(ctx, listeners[0]) }()
	go func() { a.done <- server.ServeMetadata(ctx, listeners[1]) }()
	return a, nil
}

// Close ends the agent, and what it has started. It is called once.
func (a *Agent) Close() error {
	a.stop()
	err := errors.Join(<-a.done, <-a.done)
	a.remove()
	return err
}

func (a *Agent) remove() {
	os.RemoveAll(a.dir)
	if a.secrets != "" {
		os.RemoveAll(filepath.Dir(a.secrets))
	}
}

// memory returns a directory in memory; none where the host has no such place.
func memory() string {
	dir, err := os.MkdirTemp("/dev/shm", "microvm-guesttest-")
	if err != nil {
		return ""
	}
	return filepath.Join(dir, "secrets")
}

// Secrets returns the directory in whose place a guest has /run/microvm/secrets. It is empty where the host has no /dev/shm: then the agent denies secrets.
func (a *Agent) Secrets() string { return a.secrets }

// OOMKill makes the agent tell guest.Events that the guest's kernel has killed a process, as none is killed here.
func (a *Agent) OOMKill(pid int, name, cgroup string) {
	a.server.Tell(wire.SystemEvent{Kind: wire.EventOOMKill, OOM: &wire.OOMKill{PID: pid, Name: name, Cgroup: cgroup}})
}

// Disk makes the agent tell guest.Events of the guest's root, in bytes. The event is a guest.EventType: "disk_low", "disk_full" or "disk_ok".
func (a *Agent) Disk(event string, free, size int64) {
	a.server.Tell(wire.SystemEvent{Kind: event, Disk: &wire.Disk{Path: "/", Free: free, Size: size}})
}

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
