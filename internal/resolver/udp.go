package resolver

import (
	"errors"
	"net"
	"net/netip"
	"time"

	"github.com/miekg/dns"
)

const (
	maxQuery    = 1232 // bytes; a name, a question and EDNS have less
	minAnswer   = 512  // what every client takes over UDP
	maxAnswer   = 1232 // over UDP, whatever a client offers: no fragments
	errorPause  = 50 * time.Millisecond
	headerBytes = 12
)

func (s *Server) serveUDP() {
	buffer := make([]byte, maxQuery+1)
	for {
		n, from, err := s.packets.ReadFrom(buffer)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // such as an ICMP error that an answer has met
			s.pause()
			continue
		}
		source := addressOf(from)
		if n > maxQuery || n < headerBytes || !source.IsValid() {
			continue
		}
		policy, ok := s.options.Policies.Policy(source)
		if !ok {
			s.send(refusal(buffer[:n]), minAnswer, from)
			continue
		}
		done := s.machines.query(source)
		if done == nil {
			continue
		}
		query := append([]byte(nil), buffer[:n]...)
		s.running.Go(func() {
			defer done()
			reply, size := s.answer(query, source, policy)
			s.send(reply, size, from)
		})
	}
}

func (s *Server) send(reply *dns.Msg, size int, to net.Addr) {
	if reply == nil {
		return
	}
	reply.Truncate(size)
	if packed, err := reply.Pack(); err == nil {
		s.packets.WriteTo(packed, to) // one that is lost is asked for again
	}
}

// pause waits a moment, so that an error that stays takes no processor.
func (s *Server) pause() {
	select {
	case <-s.ctx.Done():
	case <-time.After(errorPause):
	}
}

func addressOf(addr net.Addr) netip.Addr {
	switch addr := addr.(type) {
	case *net.UDPAddr:
		return addr.AddrPort().Addr().Unmap()
	case *net.TCPAddr:
		return addr.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}
