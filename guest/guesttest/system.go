//go:build linux

package guesttest

import (
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/agent"
)

// System stands for that of a guest: what the agent was asked to make of its own.
type System struct {
	agent *Agent
	root  string

	mu       sync.Mutex
	pretends bool
	clock    time.Time
	entropy  int
	hostname string
	failing  map[string]error
}

// Pretend lets the agent be the first process of a guest that is none: from now on guest.Freeze, Renew, SetClock, AddEntropy and SetHostname do something, where the host's system is not
// concerned. Before that they are guest.ErrDenied.
//
// Nothing that runs is made to stand: commands that are started while all should stand wait. A renewal runs the hooks below [System.Root], on this host.
func (a *Agent) Pretend() *System {
	a.system.mu.Lock()
	defer a.system.mu.Unlock()
	a.system.pretends = true
	return a.system
}

func newSystem(a *Agent) *System {
	return &System{agent: a, root: filepath.Join(a.dir, "root"), failing: map[string]error{}}
}

// Root returns a directory in whose place a guest has its root: for etc/machine-id, which a renewal replaces where it is there, run/microvm/generation and hooks in etc/microvm/resume.d.
func (s *System) Root() string { return s.root }

// Frozen returns the token of the present guest.Freeze; it is empty while there is none.
func (s *System) Frozen() string { return s.agent.server.Frozen() }

// Clock returns what the clock was set to at last; the zero time when it was not.
func (s *System) Clock() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.clock
}

// Entropy returns how many random bytes were given to the kernel.
func (s *System) Entropy() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.entropy
}

// Hostname returns the host's name that was set at last; it is empty when none was.
func (s *System) Hostname() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.hostname
}

// Fail makes an item of a renewal fail: "clock", "entropy" or "hostname". With a nil error it is done again.
func (s *System) Fail(item string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failing[item] = err
}

// change does something, unless it fails.
func (s *System) change(item string, do func()) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.failing[item]; err != nil {
		return err
	}
	do()
	return nil
}

// forAgent returns what the agent changes.
func (s *System) forAgent() *agent.System {
	return &agent.System{
		Root: s.root,
		May: func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.pretends
		},
		SetClock:    func(to time.Time) error { return s.change("clock", func() { s.clock = to }) },
		AddEntropy:  func(data []byte) error { return s.change("entropy", func() { s.entropy += len(data) }) },
		SetHostname: func(name string) error { return s.change("hostname", func() { s.hostname = name }) },
	}
}

// makeRoot makes what a guest always has.
func (s *System) makeRoot() error { return os.MkdirAll(filepath.Join(s.root, "run"), 0o755) }
