//go:build linux

package agent

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/tree"
	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// Options are the options of a Server. The zero value is for an agent that is not the first process.
type Options struct {
	// First says that the agent is the first process of its system: it reaps orphans. See Server.Reap.
	First bool
	// Shutdown is called, once, after a request for it was answered. Optional: such a request is refused.
	Shutdown func()
	// Secrets is the directory of secrets, which must be in memory: see SecretsDir. Optional: the agent takes none.
	Secrets string
	// Workload is the cgroup of what is started, such as WorkloadDir. Optional: what is started is where the agent is, and can't be made to stand.
	Workload string
	// System stands for the system, in tests of hosts. Optional: the first process changes its own system, any other none.
	System *System
}

// System is what is changed where an agent is not the first process.
type System struct {
	Root        string      // What is below / in a guest: its id, its generation, keys, hooks.
	May         func() bool // Says whether anything may be changed, and is asked each time.
	SetClock    func(time.Time) error
	AddEntropy  func([]byte) error
	SetHostname func(string) error
}

// Server executes commands for the host.
type Server struct {
	options  Options
	children *children
	ready    time.Duration
	work     sync.WaitGroup
	once     sync.Once
	env      variables
	secrets  secrets
	history  *history
	workload *workload

	renewal sync.Mutex // one at a time
	renewed remembered // the latest that was done; guarded by that

	// What tests put something else in place of.
	launch func(*wire.Exec) (*process, error)
	flush  func()
	system system
	dialer func(ctx context.Context, network, address string) (net.Conn, error)
	pack   func(ctx context.Context, w io.Writer, at string, o tree.PackOptions) (tree.Progress, error)
	put    func(ctx context.Context, r io.Reader, target string, o tree.PutOptions) (tree.Progress, error)
	unpack func(ctx context.Context, r io.Reader, dir string, o tree.PutOptions) (tree.Progress, error)
	lease  time.Duration // of an upload
	log    *log.Logger   // of the HTTP server; nil is standard error

	mu        sync.Mutex
	processes map[string]*process
	forgotten []string // nonces of starts whose hosts have gone, the latest
	tunnels   int
	tellings  int // connections on which only the agent speaks
	listeners map[string]*listener
	copies    map[io.Closer]bool // of requests for files, by what ends them
	uploads   map[string]*upload // those of them that outlive a connection
	results   []uploadResult     // of uploads that have ended, oldest first
	closed    bool               // no process is started any more, no tunnel, and nothing copied
	ending    context.Context
	endAll    context.CancelFunc
}

// New returns a server.
func New(options Options) *Server {
	s := &Server{
		options:   options,
		ready:     bootClock(),
		processes: map[string]*process{},
		listeners: map[string]*listener{},
		secrets:   secrets{dir: options.Secrets},
		history:   newHistory(),
		workload:  newWorkload(options.Workload),
		copies:    map[io.Closer]bool{},
		uploads:   map[string]*upload{},
		flush:     syscall.Sync,
		system:    system{setClock: setClock, addEntropy: addEntropy, setHostname: nameHost},
		pack:      tree.Pack,
		put:       tree.Put,
		lease:     uploadLease,
		unpack:    tree.Unpack,
	}
	if o := options.System; o != nil {
		s.system = system{setClock: o.SetClock, addEntropy: o.AddEntropy, setHostname: o.SetHostname, root: o.Root}
		s.workload.pretends = true
	}
	s.children = newChildren(options.First, s.workload)
	s.ending, s.endAll = context.WithCancel(context.Background())
	s.launch, s.dialer = s.start, new(net.Dialer).DialContext
	return s
}

// Reap reaps the children that have ended. With Options.First it is to be called after every SIGCHLD.
func (s *Server) Reap() { s.children.reap() }

// Serve answers the host on the listener until ctx ends; then it kills what it started.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+wire.PathHealth, s.health)
	mux.HandleFunc("POST "+wire.PathExec, s.exec)
	mux.HandleFunc("GET "+wire.PathProcesses, s.list)
	mux.HandleFunc("POST "+wire.PathSignal, s.signal)
	mux.HandleFunc("POST "+wire.PathDial, s.dial)
	mux.HandleFunc("POST "+wire.PathListen, s.listen)
	mux.HandleFunc("POST "+wire.PathAccept, s.accept)
	mux.HandleFunc("POST "+wire.PathEnv, s.setEnv)
	mux.HandleFunc("GET "+wire.PathSecrets, s.listSecrets)
	mux.HandleFunc("PUT "+wire.PathSecrets+"/{name}", s.setSecret)
	mux.HandleFunc("DELETE "+wire.PathSecrets+"/{name}", s.deleteSecret)
	mux.HandleFunc("POST "+wire.PathClock, s.clock)
	mux.HandleFunc("POST "+wire.PathEntropy, s.entropy)
	mux.HandleFunc("POST "+wire.PathHostname, s.hostname)
	mux.HandleFunc("POST "+wire.PathFreeze, s.freeze)
	mux.HandleFunc("POST "+wire.PathThaw, s.thaw)
	mux.HandleFunc("POST "+wire.PathRenew, s.renew)
	mux.HandleFunc("POST "+wire.PathFilesRead, s.readFiles)
	mux.HandleFunc("POST "+wire.PathFilesWrite, s.writeFiles)
	mux.HandleFunc("POST "+wire.PathFilesStat, s.statFile)
	mux.HandleFunc("POST "+wire.PathFilesList, s.listFiles)
	mux.HandleFunc("POST "+wire.PathFilesCompare, s.compareFiles)
	mux.HandleFunc("POST "+wire.PathFilesEnd, s.endUpload)
	mux.HandleFunc("POST "+wire.PathFilesWatch, s.watch)
	mux.HandleFunc("POST "+wire.PathEvents, s.events)
	mux.HandleFunc("POST "+wire.PathSync, s.sync)
	mux.HandleFunc("POST "+wire.PathShutdown, s.shutdown)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10, ErrorLog: s.log}
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		server.Close()
		s.end()
		close(ended)
	})
	err := server.Serve(listener)
	if stop() {
		return err
	}
	<-ended
	s.work.Wait()
	s.workload.close()
	return nil
}

func (s *Server) health(w http.ResponseWriter, _ *http.Request) {
	answer(w, wire.Health{Protocol: wire.Version, Uptime: bootClock(), Ready: s.ready, Features: wire.Features()})
}

func (s *Server) exec(w http.ResponseWriter, r *http.Request) {
	var request wire.Exec
	if !decode(w, r, &request) {
		return
	}
	leave := request.Detached && r.Header.Get("Upgrade") == ""
	if !leave && r.Header.Get("Upgrade") != wire.Upgrade {
		fail(w, refuse(wire.CodeInvalid, "header Upgrade is not %s", wire.Upgrade))
		return
	}
	p, err := s.find(&request)
	if err != nil {
		fail(w, err)
		return
	}
	defer s.work.Done()
	if leave {
		answer(w, wire.Started{PID: p.child.pid})
		return
	}
	if err := p.keeps(&request); err != nil {
		fail(w, err)
		return
	}
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		fail(w, err)
		return
	}
	defer conn.Close()
	conn.SetDeadline(time.Time{})
	if a := p.adopt(conn, &request); a != nil && a.serve(buffered.Reader) {
		s.forget(p)
	}
}

func (s *Server) signal(w http.ResponseWriter, r *http.Request) {
	var request wire.Signal
	if !decode(w, r, &request) {
		return
	}
	if request.Signal < 1 || request.Signal > 64 || request.Forget != "" && !wire.ValidID(request.Forget) {
		fail(w, refuse(wire.CodeInvalid, "signal %d, forget %q", request.Signal, request.Forget))
		return
	}
	p := s.signalled(&request)
	if p == nil {
		fail(w, refuse(wire.CodeNotFound, "process %q is not known", request.ID))
		return
	}
	if err := p.signal(syscall.Signal(request.Signal)); err != nil {
		fail(w, err)
		return
	}
	if request.Forget != "" && !p.taken() {
		s.forget(p)
	}
	answer(w, struct{}{})
}

func (s *Server) sync(w http.ResponseWriter, _ *http.Request) {
	s.flush()
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
	wire.CodeBusy: http.StatusTooManyRequests, wire.CodeExists: http.StatusConflict, wire.CodeGone: http.StatusGone, wire.CodeInternal: http.StatusInternalServerError,
	wire.CodeRefused: http.StatusBadGateway, wire.CodeNoAnswer: http.StatusGatewayTimeout,
	wire.CodeFull: http.StatusInsufficientStorage,
}

func codeOf(err error) string {
	if refused := (*requestError)(nil); errors.As(err, &refused) {
		return refused.code
	}
	return wire.CodeInternal
}

func fail(w http.ResponseWriter, err error) {
	code := codeOf(err)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(statusOf[code])
	json.NewEncoder(w).Encode(wire.Error{Code: code, Message: err.Error()})
}
