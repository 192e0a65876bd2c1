//go:build linux

package agent

import (
	"maps"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/wire"
)

const (
	maxProcesses = 1024 // that run, or whose output nobody has fetched
	maxForgotten = 256
	keepEnded    = 10 * time.Minute // how long the output of an ended process waits for a host that was cut off
)

// find returns the process of the request's id, starting it when it is new. The server does not end before the caller calls s.work.Done.
func (s *Server) find(request *wire.Exec) (*process, error) {
	if !wire.ValidID(request.ID) || request.Nonce != "" && !wire.ValidID(request.Nonce) {
		return nil, refuse(wire.CodeInvalid, "id %q or nonce %q (they must be 1 to 64 of a-z, A-Z, 0-9)", request.ID, request.Nonce)
	}
	s.mu.Lock()
	p, err := s.known(request)
	s.mu.Unlock()
	if p != nil || err != nil {
		return p, err
	}
	defer s.workload.enter()() // without the server's lock: while all stands others are answered
	s.mu.Lock()
	defer s.mu.Unlock()
	if p, err = s.known(request); p != nil || err != nil {
		return p, err
	}
	s.expire()
	if len(s.processes) >= maxProcesses {
		return nil, refuse(wire.CodeBusy, "%d processes run already", len(s.processes))
	}
	if p, err = s.launch(request); err != nil {
		return nil, err
	}
	s.processes[request.ID] = p
	s.work.Add(1)
	return p, nil
}

// known returns the process of the request's id; nil when it is to be started. The server's lock is held.
func (s *Server) known(request *wire.Exec) (*process, error) {
	if s.closed {
		return nil, refuse(wire.CodeBusy, "the agent ends")
	}
	if request.Nonce != "" && slices.Contains(s.forgotten, request.Nonce) {
		return nil, refuse(wire.CodeGone, "the host of process %s has gone", request.ID)
	}
	if p := s.processes[request.ID]; p != nil {
		if !request.Attach && p.nonce != request.Nonce {
			return nil, refuse(wire.CodeExists, "process %s was started by another request", request.ID)
		}
		s.work.Add(1)
		return p, nil
	}
	if request.Attach {
		return nil, refuse(wire.CodeNotFound, "process %s is not known", request.ID)
	}
	return nil, nil
}

// expire forgets processes that ended long ago and whose output nobody has come for. Those that were started to be left wait for as long as there is room.
func (s *Server) expire() {
	var oldest *process
	for id, p := range s.processes {
		since, waits := p.waits()
		switch {
		case !waits:
		case p.detached:
			if oldest == nil || since.Before(oldest.ended) {
				oldest = p
			}
		case time.Since(since) > keepEnded:
			p.release()
			delete(s.processes, id)
		}
	}
	if len(s.processes) >= maxProcesses && oldest != nil {
		oldest.release()
		delete(s.processes, oldest.id)
	}
}

// waits says whether the process has ended and no host is connected, and since when it has ended.
func (p *process) waits() (since time.Time, waits bool) {
	select {
	case <-p.exited:
	default:
		return time.Time{}, false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ended, p.attached == nil
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

// signalled returns the process that a signal is for; nil when there is none. The nonce of a host that has gone is kept: its request may come late, or twice.
func (s *Server) signalled(request *wire.Signal) *process {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.processes[request.ID]
	if request.Forget == "" {
		return p
	}
	s.forgotten = append(s.forgotten, request.Forget)
	if len(s.forgotten) > maxForgotten {
		s.forgotten = slices.Delete(s.forgotten, 0, 1)
	}
	if p != nil && p.nonce != request.Forget {
		return nil
	}
	return p
}

// taken says whether another host than the one that started the process is attached to it.
func (p *process) taken() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.attached != nil && p.attached.nonce != p.nonce
}

// end kills all processes, and cuts their connections and all tunnels.
func (s *Server) end() {
	s.mu.Lock()
	s.closed = true
	all := slices.Collect(maps.Values(s.processes))
	for conn := range s.copies {
		conn.Close()
	}
	s.mu.Unlock()
	s.endAll()
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
