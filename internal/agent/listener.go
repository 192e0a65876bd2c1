//go:build linux

package agent

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"sync"
	"syscall"

	"github.com/tangle-network/microvm-runtime/internal/tunnel"
	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// listener is an address of the guest whose connections the host takes. It lives as long as the host's connection.
type listener struct {
	net.Listener
	room chan struct{} // one for each connection that waits for the host

	mu      sync.Mutex
	waiting map[uint64]net.Conn
	closed  bool
}

// listen listens for the host, until its connection ends.
func (s *Server) listen(w http.ResponseWriter, r *http.Request) {
	var request wire.Listen
	if !decode(w, r, &request) || !upgrades(w, r) {
		return
	}
	l, err := s.openListener(&request)
	if err != nil {
		fail(w, err)
		return
	}
	defer s.release(request.ID)
	defer l.close()
	conn, in, err := switchOver(w)
	if err != nil {
		return
	}
	defer conn.Close()
	stop := context.AfterFunc(s.ending, func() { conn.Close() })
	defer stop()
	var telling sync.WaitGroup
	telling.Go(func() {
		l.tell(conn)
		conn.Close()
	})
	in.Peek(1) // the host says nothing; it goes
	conn.Close()
	l.close()
	telling.Wait()
}

func (s *Server) openListener(request *wire.Listen) (*listener, error) {
	network, address, err := wire.Target(request.Address)
	if err != nil {
		return nil, refuse(wire.CodeInvalid, "address: %w", err)
	}
	if !wire.ValidID(request.ID) {
		return nil, refuse(wire.CodeInvalid, "id %q (it must be 1 to 64 of a-z, A-Z, 0-9)", request.ID)
	}
	l := &listener{room: make(chan struct{}, wire.MaxIncoming), waiting: map[uint64]net.Conn{}}
	if err := s.reserve(request.ID, l); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(s.ending, dialPatience) // of a name's look-up
	defer cancel()
	if l.Listener, err = new(net.ListenConfig).Listen(ctx, network, address); err != nil {
		s.release(request.ID)
		return nil, listenError(err)
	}
	return l, nil
}

// reserve counts a listener. The server does not end before the caller calls release.
func (s *Server) reserve(id string, l *listener) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return refuse(wire.CodeBusy, "the agent ends")
	case s.listeners[id] != nil:
		return refuse(wire.CodeExists, "listener %s is there already", id)
	case len(s.listeners) >= wire.MaxListeners:
		return refuse(wire.CodeBusy, "%d listeners are open already", len(s.listeners))
	}
	s.listeners[id] = l
	s.work.Add(1)
	return nil
}

func (s *Server) release(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listeners, id)
	s.work.Done()
}

func listenError(err error) error {
	code := wire.CodeInternal
	dns := (*net.DNSError)(nil)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		code = wire.CodeExists
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.EADDRNOTAVAIL), errors.As(err, &dns):
		code = wire.CodeNotFound
	case errors.Is(err, os.ErrPermission):
		code = wire.CodeDenied
	}
	return refuse(code, "%w", err)
}

// tell accepts connections and tells the host of each. While it has not taken many, no more are accepted: they wait in the kernel.
func (l *listener) tell(host net.Conn) {
	for number := uint64(1); ; number++ {
		l.room <- struct{}{}
		conn, err := l.Accept()
		if err != nil || !l.keep(number, conn) {
			return
		}
		if _, err := host.Write(wire.AppendIncoming(nil, number)); err != nil {
			return
		}
	}
}

func (l *listener) keep(number uint64, conn net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		tunnel.Cut(conn)
		return false
	}
	l.waiting[number] = conn
	return true
}

// take returns a connection that waits; nil when there is none of that number.
func (l *listener) take(number uint64) net.Conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	conn := l.waiting[number]
	if conn != nil {
		delete(l.waiting, number)
		<-l.room
	}
	return conn
}

// close ends the listener and refuses what waits.
func (l *listener) close() {
	l.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	for number, conn := range l.waiting {
		tunnel.Cut(conn)
		delete(l.waiting, number)
		<-l.room
	}
}

// accept makes a tunnel to a connection that has come.
func (s *Server) accept(w http.ResponseWriter, r *http.Request) {
	var request wire.Accept
	if !decode(w, r, &request) || !upgrades(w, r) {
		return
	}
	if err := s.enter(); err != nil {
		fail(w, err)
		return
	}
	defer s.leave()
	s.mu.Lock()
	l := s.listeners[request.ID]
	s.mu.Unlock()
	if l == nil {
		fail(w, refuse(wire.CodeNotFound, "listener %q is not there", request.ID))
		return
	}
	conn := l.take(request.Number)
	if conn == nil {
		fail(w, refuse(wire.CodeGone, "connection %d does not wait", request.Number))
		return
	}
	s.carry(w, conn)
}
