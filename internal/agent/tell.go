//go:build linux

package agent

import (
	"context"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// tell makes the host's connection one on which only the agent speaks, as say does, until either ends it. stop ends say.
func (s *Server) tell(w http.ResponseWriter, say func(io.Writer), stop func()) {
	conn, in, err := switchOver(w)
	if err != nil {
		return
	}
	defer conn.Close()
	release := context.AfterFunc(s.ending, func() { conn.Close() })
	defer release()
	var telling sync.WaitGroup
	telling.Go(func() {
		say(conn)
		// A connection that is closed at once loses what was said: the host closes it.
		conn.SetDeadline(time.Now().Add(lastPatience))
		conn.Write(wire.Append(nil, wire.DataEnd, nil))
	})
	in.Peek(1) // the host says nothing; it goes
	conn.Close()
	stop()
	telling.Wait()
}

// admit counts a connection on which the agent tells. The server does not end before the caller calls dismiss.
func (s *Server) admit() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return refuse(wire.CodeBusy, "the agent ends")
	case s.tellings >= wire.MaxWatches:
		return refuse(wire.CodeBusy, "%d watch already", s.tellings)
	}
	s.tellings++
	s.work.Add(1)
	return nil
}

func (s *Server) dismiss() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tellings--
	s.work.Done()
}
