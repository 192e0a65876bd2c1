//go:build linux

package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
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

// Options are the options of a Server. The zero value is for an agent that is not the first process.
type Options struct {
	// First says that the agent is the first process of its system: it reaps orphans. See Server.Reap.
	First bool
	// Shutdown is called, once, after a request for it was answered. Optional: such a request is refused.
	Shutdown func()
}

// Server executes commands for the host.
type Server struct {
	options  Options
	children *children
	ready    time.Duration
	work     sync.WaitGroup
	once     sync.Once

	mu        sync.Mutex
	processes map[string]*process
}

// New returns a server.
func New(options Options) *Server {
	return &Server{
		options:   options,
		ready:     bootClock(),
		children:  newChildren(options.First),
		processes: map[string]*process{},
	}
}

// Reap reaps the children that have ended. With Options.First it is to be called after every SIGCHLD.
func (s *Server) Reap() { s.children.reap() }

// Serve answers the host on the listener until ctx ends; then it kills what it started.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+wire.PathHealth, s.health)
	mux.HandleFunc("POST "+wire.PathExec, s.exec)
	mux.HandleFunc("POST "+wire.PathSignal, s.signal)
	mux.HandleFunc("POST "+wire.PathSync, s.sync)
	mux.HandleFunc("POST "+wire.PathShutdown, s.shutdown)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10}
	stop := context.AfterFunc(ctx, func() {
		server.Close()
		s.end()
	})
	defer stop()
	err := server.Serve(listener)
	if ctx.Err() != nil {
		s.work.Wait()
		return nil
	}
	return err
}

// end kills all processes and cuts their connections.
func (s *Server) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.processes {
		p.signal(syscall.SIGKILL)
		p.release()
		p.mu.Lock()
		a := p.attached
		p.mu.Unlock()
		if a != nil {
			a.leave()
		}
	}
}

func (s *Server) health(w http.ResponseWriter, _ *http.Request) {
	answer(w, wire.Health{Protocol: wire.Version, Uptime: bootClock(), Ready: s.ready})
}

func validID(id string) bool {
	other := func(r rune) bool { return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') }
	return len(id) >= 1 && len(id) <= 64 && strings.IndexFunc(id, other) < 0
}

func (s *Server) exec(w http.ResponseWriter, r *http.Request) {
	var request wire.Exec
	if !decode(w, r, &request) {
		return
	}
	if r.Header.Get("Upgrade") != wire.Upgrade {
		fail(w, refuse(wire.CodeInvalid, "header Upgrade is not %s", wire.Upgrade))
		return
	}
	p, err := s.find(&request)
	if err != nil {
		fail(w, err)
		return
	}
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		fail(w, err)
		return
	}
	s.work.Add(1)
	defer s.work.Done()
	defer conn.Close()
	conn.SetDeadline(time.Time{})
	a, received := p.adopt(conn)
	fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n%s: %s\r\n\r\n",
		wire.Upgrade, wire.HeaderStdin, strconv.FormatUint(received, 10))
	if a.serve(buffered.Reader, request.Stdout, request.Stderr) {
		s.forget(p)
	}
}

// find returns the process of the request's id, starting it when it is new.
func (s *Server) find(request *wire.Exec) (*process, error) {
	if !validID(request.ID) {
		return nil, refuse(wire.CodeInvalid, "id %q", request.ID)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.processes[request.ID]; p != nil {
		return p, nil
	}
	if request.Attach {
		return nil, refuse(wire.CodeNotFound, "process %s is not known", request.ID)
	}
	s.expire()
	if len(s.processes) >= maxProcesses {
		return nil, refuse(wire.CodeBusy, "%d processes run already", len(s.processes))
	}
	p, err := s.start(request)
	if err != nil {
		return nil, err
	}
	s.processes[request.ID] = p
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

func (s *Server) forget(p *process) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p.release()
	delete(s.processes, p.id)
}

func (s *Server) signal(w http.ResponseWriter, r *http.Request) {
	var request wire.Signal
	if !decode(w, r, &request) {
		return
	}
	s.mu.Lock()
	p := s.processes[request.ID]
	s.mu.Unlock()
	switch {
	case p == nil:
		fail(w, refuse(wire.CodeNotFound, "process %q is not known", request.ID))
	case request.Signal < 1 || request.Signal > 64:
		fail(w, refuse(wire.CodeInvalid, "signal %d", request.Signal))
	default:
		if err := p.signal(syscall.Signal(request.Signal)); err != nil {
			fail(w, err)
			return
		}
		answer(w, struct{}{})
	}
}

func (s *Server) sync(w http.ResponseWriter, _ *http.Request) {
	syscall.Sync()
	answer(w, struct{}{})
}

func (s *Server) shutdown(w http.ResponseWriter, _ *http.Request) {
	if s.options.Shutdown == nil {
		fail(w, refuse(wire.CodeDenied, "this agent is not the first process of its system"))
		return
	}
	answer(w, struct{}{})
	http.NewResponseController(w).Flush()
	s.once.Do(func() { go s.options.Shutdown() })
}

// decode reads a request's body; it answers and returns false when it is bad.
func decode(w http.ResponseWriter, r *http.Request, value any) bool {
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, wire.MaxBody))
	if err == nil {
		err = json.Unmarshal(text, value)
	}
	if err != nil {
		fail(w, refuse(wire.CodeInvalid, "body: %w", err))
		return false
	}
	return true
}

func answer(w http.ResponseWriter, value any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(value)
}

var statusOf = map[string]int{
	wire.CodeInvalid: http.StatusBadRequest, wire.CodeNotFound: http.StatusNotFound, wire.CodeDenied: http.StatusForbidden,
	wire.CodeBusy: http.StatusTooManyRequests, wire.CodeInternal: http.StatusInternalServerError,
}

func fail(w http.ResponseWriter, err error) {
	code := wire.CodeInternal
	if refused := (*requestError)(nil); errors.As(err, &refused) {
		code = refused.code
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(statusOf[code])
	json.NewEncoder(w).Encode(wire.Error{Code: code, Message: err.Error()})
}
