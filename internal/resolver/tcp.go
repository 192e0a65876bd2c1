package resolver

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/miekg/dns"
)

func (s *Server) serveTCP() {
	for {
		conn, err := s.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // such as too many open files
			s.pause()
			continue
		}
		source := addressOf(conn.RemoteAddr())
		_, known := s.options.Policies.Policy(source)
		var done func()
		if known {
			done = s.machines.connection(source)
		}
		if done == nil {
			conn.Close()
			continue
		}
		s.running.Go(func() {
			defer done()
			defer conn.Close()
			stop := context.AfterFunc(s.ctx, func() { conn.Close() })
			defer stop()
			s.serveConn(conn, source)
		})
	}
}

// serveConn answers one query after the other. A machine that loses its policy meanwhile is hung up on.
func (s *Server) serveConn(conn net.Conn, source netip.Addr) {
	for s.ctx.Err() == nil {
		conn.SetDeadline(time.Now().Add(s.options.Limits.Idle))
		query, err := readMessage(conn)
		if err != nil {
			return
		}
		policy, ok := s.options.Policies.Policy(source)
		if !ok {
			return
		}
		done := s.machines.query(source)
		if done == nil {
			return
		}
		reply, _ := s.answer(query, source, policy)
		done()
		if reply == nil || writeMessage(conn, reply, s.options.Limits.Idle) != nil {
			return
		}
	}
}

func readMessage(conn net.Conn) ([]byte, error) {
	var length [2]byte
	if _, err := io.ReadFull(conn, length[:]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint16(length[:]))
	if n > maxQuery || n < headerBytes {
		return nil, errors.New("a query of an impossible length")
	}
	query := make([]byte, n)
	_, err := io.ReadFull(conn, query)
	return query, err
}

func writeMessage(conn net.Conn, reply *dns.Msg, patience time.Duration) error {
	packed, err := reply.Pack()
	if err != nil || len(packed) > dns.MaxMsgSize {
		return errors.New("an answer that can't be sent")
	}
	conn.SetDeadline(time.Now().Add(patience))
	_, err = conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(packed))), packed...))
	return err
}
