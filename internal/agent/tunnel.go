//go:build linux

package agent

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/tunnel"
	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// dialPatience is how long what a tunnel leads to may take to answer.
const dialPatience = 10 * time.Second

// dial makes a tunnel to what the host names.
func (s *Server) dial(w http.ResponseWriter, r *http.Request) {
	var request wire.Dial
	if !decode(w, r, &request) || !upgrades(w, r) {
		return
	}
	network, address, err := wire.Target(request.Target)
	if err != nil {
		fail(w, refuse(wire.CodeInvalid, "target: %w", err))
		return
	}
	if err := s.enter(); err != nil {
		fail(w, err)
		return
	}
	defer s.leave()
	ctx, cancel := context.WithTimeout(r.Context(), dialPatience) // ends with the host's connection, too
	defer cancel()
	target, err := s.dialer(ctx, network, address)
	if err != nil {
		fail(w, dialError(err))
		return
	}
	s.carry(w, target)
}

func dialError(err error) error {
	code := wire.CodeInternal
	dns := (*net.DNSError)(nil)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		code = wire.CodeRefused
	case errors.Is(err, os.ErrNotExist), errors.As(err, &dns) && dns.IsNotFound:
		code = wire.CodeNotFound
	case errors.Is(err, os.ErrPermission):
		code = wire.CodeDenied
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH), errors.As(err, &dns):
		code = wire.CodeNoAnswer
	}
	return refuse(code, "%w", err)
}

// enter counts a tunnel. The server does not end before the caller calls leave.
func (s *Server) enter() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return refuse(wire.CodeBusy, "the agent ends")
	case s.tunnels >= wire.MaxTunnels:
		return refuse(wire.CodeBusy, "%d tunnels are open already", s.tunnels)
	}
	s.tunnels++
	s.work.Add(1)
	return nil
}

func (s *Server) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tunnels--
	s.work.Done()
}

// carry makes the host's connection a tunnel to the target, until either ends.
func (s *Server) carry(w http.ResponseWriter, target net.Conn) {
	conn, in, err := switchOver(w)
	if err != nil {
		tunnel.Cut(target)
		return
	}
	tunnel.Serve(s.ending, target, tunnel.New(conn, in, target.RemoteAddr()))
}

// upgrades says whether the request asks for frames; it answers when it does not.
func upgrades(w http.ResponseWriter, r *http.Request) bool {
	if r.Header.Get("Upgrade") == wire.Upgrade {
		return true
	}
	fail(w, refuse(wire.CodeInvalid, "header Upgrade is not %s", wire.Upgrade))
	return false
}

// switchOver answers that HTTP ends here. The connection is the caller's.
func switchOver(w http.ResponseWriter) (net.Conn, *bufio.Reader, error) {
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		fail(w, err)
		return nil, nil, err
	}
	conn.SetDeadline(time.Time{})
	if _, err := fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", wire.Upgrade); err != nil {
		conn.Close()
		return nil, nil, err
	}
	return conn, buffered.Reader, nil
}
