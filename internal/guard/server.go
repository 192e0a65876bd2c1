//go:build linux

package guard

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/helper"
	"github.com/tangle-network/microvm-runtime/internal/netns"
	"github.com/tangle-network/microvm-runtime/internal/resolver"
)

// Config is what a guard serves.
type Config struct {
	Dir      string
	Hub      string            // Path of the namespace that all slots lead to.
	Address  netip.Addr        // The hub's: where the resolver listens.
	Subnet   netip.Prefix      // Of the machines.
	Upstream resolver.Upstream // Optional: the servers that the host asks.
	Log      *slog.Logger      // Optional: silent.
}

// Server serves all machines of a state directory.
type Server struct {
	config   Config
	resolver *resolver.Server
	control  *net.UnixListener
	serving  sync.WaitGroup
	host     hostAddresses

	mu       sync.Mutex
	closed   bool
	machines map[netip.Addr]*machine
}

// Serve opens the resolver in the hub's namespace, and the gates of all machines that have one.
func Serve(config Config) (*Server, error) {
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{config: config, machines: map[netip.Addr]*machine{}}
	if err := s.listen(); err != nil {
		return nil, err
	}
	if err := s.serveNames(); err != nil {
		return nil, errors.Join(err, s.control.Close())
	}
	all, err := addresses(config.Dir)
	for _, address := range all {
		if err := s.sync(address); err != nil { // one machine's harm is not the others'
			config.Log.Warn("machine is not guarded", "address", address, "error", err)
		}
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	s.serving.Go(func() { helper.Answer(s.control, &s.serving, s.answer) })
	return s, nil
}

func (s *Server) serveNames() error {
	ns, err := netns.Open(s.config.Hub)
	if err != nil {
		return err
	}
	defer ns.Close()
	at := netip.AddrPortFrom(s.config.Address, 53).String()
	packets, err := within(ns, func() (net.PacketConn, error) { return net.ListenPacket("udp4", at) })
	if err != nil {
		return fmt.Errorf("resolver: %w", err)
	}
	streams, err := within(ns, func() (net.Listener, error) { return net.Listen("tcp4", at) })
	if err != nil {
		return errors.Join(fmt.Errorf("resolver: %w", err), packets.Close())
	}
	s.resolver = resolver.Serve(packets, streams, resolver.Options{
		Policies: s, Upstream: s.config.Upstream, Host: s.host.has, Subnet: s.config.Subnet, Log: s.config.Log,
		Denied: s.denied,
		Limits: resolver.Limits{PerSecond: 1e5, Burst: 1e5}, // each machine's firewall has its own cap
	})
	return nil
}

// Policy is what the resolver asks for each query.
func (s *Server) Policy(source netip.Addr) (*resolver.Policy, bool) {
	m, err := s.machine(source.Unmap())
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			s.config.Log.Warn("machine is not guarded", "address", source, "error", err)
		}
		return nil, false
	}
	return m.now(s.config.Dir)
}

// machine returns a machine as its entry is now. fs.ErrNotExist when there is none.
func (s *Server) machine(address netip.Addr) (*machine, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, fs.ErrNotExist
	}
	m := s.machines[address]
	if m != nil {
		if _, ok := m.now(s.config.Dir); ok {
			return m, nil
		}
	}
	e, file, err := load(s.config.Dir, address)
	if err == nil && m.is(e) {
		m.update(e, file)
		return m, nil
	}
	if m != nil { // it is gone, whatever stands in its place
		delete(s.machines, address)
		m.leave()
		s.serving.Go(func() { m.close() })
	}
	if err != nil {
		return nil, err
	}
	if m, err = open(e, file); err != nil {
		return nil, err
	}
	s.machines[address] = m
	return m, nil
}

// denied notes what the resolver has denied by what opens it: the name, or the address where the name is allowed. A type that is not answered nothing opens.
func (s *Server) denied(d resolver.Denied) {
	s.mu.Lock()
	m := s.machines[d.Source.Unmap()]
	s.mu.Unlock()
	switch {
	case m == nil || d.Reason == resolver.NoSuchType:
	case d.Reason == resolver.ReservedAddress:
		m.deny(d.Address.String())
	default:
		m.deny(d.Name)
	}
}

// Close ends the server with all gates.
func (s *Server) Close() error {
	s.mu.Lock()
	s.closed = true
	machines := s.machines
	s.machines = nil
	s.mu.Unlock()
	err := errors.Join(s.control.Close(), s.resolver.Close())
	for _, m := range machines {
		err = errors.Join(err, m.close())
	}
	s.serving.Wait()
	return err
}

// hostAddresses are the host's own, as they were a moment ago.
type hostAddresses struct {
	mu    sync.Mutex
	since time.Time
	all   map[netip.Addr]bool
}

func (h *hostAddresses) has(address netip.Addr) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if time.Since(h.since) > time.Second {
		h.read()
	}
	return h.all[address]
}

func (h *hostAddresses) read() {
	own, err := net.InterfaceAddrs()
	if err != nil {
		return // what was known stands
	}
	h.since, h.all = time.Now(), make(map[netip.Addr]bool, len(own))
	for _, a := range own {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil {
			h.all[prefix.Addr().Unmap()] = true
		}
	}
}

func socketPath(dir string) string { return filepath.Join(dir, "guard.sock") }

// listen makes the socket that clients come to. Who serves a directory holds its lock, so that one which is there is of a guard that is gone.
func (s *Server) listen() error {
	path := socketPath(s.config.Dir)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	control, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	s.control = control
	return err
}

// Wait blocks until ctx ends, or no machine needs a guard for as long as idle.
func (s *Server) Wait(ctx context.Context, idle time.Duration) {
	tick := time.NewTicker(idle / 4)
	defer tick.Stop()
	needed := time.Now()
	for time.Since(needed) < idle {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if all, err := addresses(s.config.Dir); err != nil || len(all) > 0 {
			needed = time.Now()
		}
	}
}
