//go:build linux

package agent

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/wire"
)

const (
	maxProcesses = 1024             // that run, or whose output nobody has fetched
	keepEnded    = 10 * time.Minute // how long the output of an ended process waits for a host that was cut off
)

func validID(id string) bool {
	other := func(r rune) bool { return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') }
	return len(id) >= 1 && len(id) <= 64 && strings.IndexFunc(id, other) < 0
}

// find returns the process of the request's id, starting it when it is new. The server does not end before the caller calls s.work.Done.
func (s *Server) find(request *wire.Exec) (*process, error) {
	if !validID(request.ID) {
		return nil, refuse(wire.CodeInvalid, "id %q", request.ID)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, refuse(wire.CodeBusy, "the agent ends")
	}
	if p := s.processes[request.ID]; p != nil {
		s.work.Add(1)
		return p, nil
	}
	if request.Attach {
		return nil, refuse(wire.CodeNotFound, "process %s is not known", request.ID)
	}
	s.expire()
	if len(s.processes) >= maxProcesses {
		return nil, refuse(wire.CodeBusy, "%d processes run already", len(s.processes))
	}
	p, err := s.launch(request)
	if err != nil {
		return nil, err
	}
	s.processes[request.ID] = p
	s.work.Add(1)
	return p, nil
}

// expire forgets processes that ended long ago and whose output nobody has come for.
func (s *Server) expire() {
	for id, p := range s.processes {
		select {
		case <-p.exited:
			if time.Since(p.ended) > keepEnded {
				p.release()
				delete(s.processes, id)
			}
		default:
		}
	}
}

// forget lets a process go of which the host has all. One that still runs goes on without its streams, and is forgotten at its end.
func (s *Server) forget(p *process) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p.release()
	select {
	case <-p.exited:
		delete(s.processes, p.id)
	default:
		p.abandoned = true
	}
}

// end kills all processes and cuts their connections.
func (s *Server) end() {
	s.mu.Lock()
	s.closed = true
	all := slices.Collect(maps.Values(s.processes))
	s.mu.Unlock()
	var ending sync.WaitGroup
	for _, p := range all {
		ending.Go(func() {
			p.release()
			p.mu.Lock()
			a := p.attached
			p.mu.Unlock()
			if a != nil {
				a.leave()
			}
			p.signal(syscall.SIGKILL)
		})
	}
	ending.Wait()
}
