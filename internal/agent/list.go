//go:build linux

package agent

import (
	"cmp"
	"encoding/json"
	"net/http"
	"slices"
	"syscall"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// list answers with all processes that a host may still come for.
func (s *Server) list(w http.ResponseWriter, _ *http.Request) {
	answer(w, wire.Processes{Processes: s.listed()})
}

func (s *Server) listed() []wire.Process {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]wire.Process, 0, len(s.processes))
	for _, p := range s.processes {
		if !p.abandoned {
			all = append(all, p.told())
		}
	}
	slices.SortFunc(all, func(a, b wire.Process) int { return cmp.Or(cmp.Compare(a.Started, b.Started), cmp.Compare(a.ID, b.ID)) })
	return all
}

func (p *process) told() wire.Process {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := wire.Process{ID: p.id, Argv: p.argv, ArgvCut: p.argvCut, PID: p.child.pid, Started: p.started, TTY: p.terminal, Attached: p.attached != nil}
	select {
	case <-p.exited:
		exit := p.exit
		t.Exit = &exit
	default:
	}
	return t
}

// cutArgv returns what fits into wire.MaxArgv bytes of JSON.
func cutArgv(argv []string) (kept []string, cut bool) {
	left := wire.MaxArgv
	for _, arg := range argv {
		if left -= len(`"",`); left < 0 {
			return kept, true
		}
		for i, r := range arg {
			text, _ := json.Marshal(string(r))
			if left -= len(text) - len(`""`); left < 0 {
				return append(kept, arg[:i]), true
			}
		}
		kept = append(kept, arg)
	}
	return kept, false
}

func usageOf(u *syscall.Rusage) *wire.Usage {
	const kibibyte = 1 << 10 // what Linux counts in (getrusage(2))
	return &wire.Usage{User: time.Duration(u.Utime.Nano()), System: time.Duration(u.Stime.Nano()), MaxRSS: u.Maxrss * kibibyte}
}
