//go:build linux

package agent

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// WorkloadDir is the cgroup (v2) of what the first process of a microVM starts for the host. What is in it, or below, can be made to stand.
const WorkloadDir = "/sys/fs/cgroup/workload"

// freezePatience is how long processes may take to stand. One that waits for a disk in the kernel stands when it returns.
const freezePatience = 5 * time.Second

// workload is all that requests have started, and what came of it.
type workload struct {
	dir string // of its cgroup; empty where there is none
	fd  int    // of dir, for processes that are born in it; -1 where there is none

	pretends bool // nothing is made to stand where there is no cgroup, but what is to be started waits

	// gate is held, shared, while a process is born, and alone while the workload stands: a process that is born into what stands would never tell that it is.
	gate    sync.RWMutex
	waiters atomic.Int64 // that want to have a process born

	mu    sync.Mutex
	token string // of the present freeze; empty while there is none
	lease *lease // nil: it has no end, as the machine is another than the one that was frozen

	after func(time.Duration, func()) // time.AfterFunc; tests put something else in its place
}

// newWorkload makes the cgroup. Where it can't processes are where the agent is, and nothing can be made to stand.
func newWorkload(dir string) *workload {
	w := &workload{fd: -1, after: func(d time.Duration, f func()) { time.AfterFunc(d, f) }}
	if dir == "" {
		return w
	}
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return w
	}
	if _, err := os.Stat(filepath.Join(dir, "cgroup.freeze")); err != nil {
		return w
	}
	fd, err := unix.Open(dir, unix.O_DIRECTORY|unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return w
	}
	w.dir, w.fd = dir, fd
	return w
}

// attr makes a process be born in the cgroup.
func (w *workload) attr(attr *syscall.SysProcAttr) {
	if w.fd >= 0 {
		attr.UseCgroupFD, attr.CgroupFD = true, w.fd
	}
}

// enter waits until the workload does not stand, and keeps it so until leave is called: who holds another lock keeps others from all that it guards.
func (w *workload) enter() (leave func()) {
	w.waiters.Add(1)
	w.gate.RLock()
	w.waiters.Add(-1)
	return w.gate.RUnlock
}

// freeze makes the workload stand until a thaw of the token, or for the lease. One that stands for another is let go first: its host has gone, or it is the one that this machine is a clone of.
func (w *workload) freeze(token string, patience time.Duration) error {
	if w.dir == "" && !w.pretends {
		return refuse(wire.CodeDenied, "the guest's kernel has no cgroup that can be frozen (cgroup v2, from Linux 5.2)")
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.token != "" && w.token != token {
		if err := w.let(); err != nil {
			return err
		}
	}
	if w.token == "" {
		w.gate.Lock()
		if err := w.stand(); err != nil {
			return errors.Join(err, w.set("0"), w.open())
		}
		w.token = token
	}
	w.extend(patience)
	return nil
}

// extend makes the present freeze end after a lease; mu is held.
func (w *workload) extend(left time.Duration) {
	w.lease = &lease{left: left}
	w.wind(w.lease)
}

// lease is what is left of a freeze. It is counted in short turns, of which each counts as one however long it was: a clone's clock may go on, in one step, from when its snapshot was taken, and
// its workload must not before it is the machine's own.
type lease struct{ left time.Duration }

// leaseTurn is one turn.
const leaseTurn = time.Second

// wind begins a turn of a lease; mu is held.
func (w *workload) wind(l *lease) {
	turn := min(l.left, leaseTurn)
	w.after(turn, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.lease != l {
			return // it was extended, or is over
		}
		if l.left -= turn; l.left > 0 {
			w.wind(l)
			return
		}
		w.let()
	})
}

// hold makes what stands for a token stand without an end: the machine is a clone, and only its renewal lets it go on.
func (w *workload) hold(token string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.token == token {
		w.lease = nil
	}
}

func (w *workload) open() error {
	w.gate.Unlock()
	return nil
}

// stand waits until all stands.
func (w *workload) stand() error {
	if err := w.set("1"); err != nil || w.dir == "" {
		return err
	}
	for begin := time.Now(); ; time.Sleep(time.Millisecond) {
		text, err := os.ReadFile(filepath.Join(w.dir, "cgroup.events"))
		if err != nil || strings.Contains(string(text), "frozen 1") {
			return err
		}
		if time.Since(begin) > freezePatience {
			return refuse(wire.CodeBusy, "something in the guest does not stand within %v: it may wait for a disk", freezePatience)
		}
	}
}

func (w *workload) set(value string) error {
	if w.dir == "" {
		return nil
	}
	return os.WriteFile(filepath.Join(w.dir, "cgroup.freeze"), []byte(value), 0)
}

// thaw lets what stands for a token go on. It says whether anything did.
func (w *workload) thaw(token string) (bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.token == "" || w.token != token {
		return false, nil
	}
	return true, w.let()
}

// let lets what stands go on; mu is held.
func (w *workload) let() error {
	if err := w.set("0"); err != nil {
		return err
	}
	w.lease, w.token = nil, ""
	w.gate.Unlock()
	return nil
}

// release lets what stands go on that is no clone's which was not made its own: at the system's end it may end by itself.
func (w *workload) release() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.token != "" && w.lease != nil {
		w.let()
	}
}

// close lets what stands go on, and forgets the cgroup. No process is born any more.
func (w *workload) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.token != "" {
		w.let()
	}
	if w.fd >= 0 {
		unix.Close(w.fd)
		w.fd = -1
	}
}

// Frozen returns the token of the present freeze; it is empty while there is none.
func (s *Server) Frozen() string {
	s.workload.mu.Lock()
	defer s.workload.mu.Unlock()
	return s.workload.token
}

// EndFreeze lets what stands for a snapshot go on, for the system's end.
func (s *Server) EndFreeze() { s.workload.release() }

func (s *Server) freeze(w http.ResponseWriter, r *http.Request) {
	change(s, w, r, func(request *wire.Freeze) (any, error) {
		switch {
		case !wire.ValidID(request.Token):
			return nil, refuse(wire.CodeInvalid, "token %.80q (it must be 1 to 64 of a-z, A-Z and 0-9)", request.Token)
		case request.Lease <= 0 || request.Lease > wire.MaxLease:
			return nil, refuse(wire.CodeInvalid, "lease %v (it must be more than 0, and at most %v)", request.Lease, wire.MaxLease)
		}
		flush := s.flush
		if s.workload.pretends {
			flush = func() {} // of a system that is not its own
		}
		flush() // most of it, while all runs
		if err := s.workload.freeze(request.Token, request.Lease); err != nil {
			return nil, err
		}
		flush()
		return struct{}{}, nil
	})
}

func (s *Server) thaw(w http.ResponseWriter, r *http.Request) {
	change(s, w, r, func(request *wire.Thaw) (any, error) {
		_, err := s.workload.thaw(request.Token)
		return struct{}{}, err
	})
}
