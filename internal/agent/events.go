//go:build linux

package agent

import (
	"crypto/rand"
	"io"
	"net/http"
	"sync"

	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// history is what happened to the system, as far as it is kept: the newest wire.MaxKept events.
type history struct {
	boot string

	mu      sync.Mutex
	kept    []wire.SystemEvent
	last    uint64
	changed chan struct{} // closed at the next event
}

func newHistory() *history { return &history{boot: rand.Text(), changed: make(chan struct{})} }

// add numbers an event and keeps it.
func (h *history) add(e wire.SystemEvent) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last++
	e.Boot, e.Seq, e.Time = h.boot, h.last, bootClock()
	if len(h.kept) == wire.MaxKept {
		h.kept = append(h.kept[:0:0], h.kept[1:]...)
	}
	h.kept = append(h.kept, e)
	close(h.changed)
	h.changed = make(chan struct{})
}

// behind returns what is kept behind a number, and what is closed when there is more.
func (h *history) behind(after uint64) ([]wire.SystemEvent, <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, e := range h.kept {
		if e.Seq > after {
			return h.kept[i:len(h.kept):len(h.kept)], h.changed
		}
	}
	return nil, h.changed
}

// Tell tells hosts of an event of the system, now and later. Its Boot, Seq and Time are set.
func (s *Server) Tell(e wire.SystemEvent) { s.history.add(e) }

// events tells the host what happens to the system, from where it says.
func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	var request wire.Subscribe
	if !decode(w, r, &request) || !upgrades(w, r) {
		return
	}
	if err := s.admit(); err != nil {
		fail(w, err)
		return
	}
	defer s.dismiss()
	after := request.After
	if request.Boot != s.history.boot {
		after = 0
	}
	done := make(chan struct{})
	s.tell(w, func(host io.Writer) {
		for {
			events, changed := s.history.behind(after)
			for _, e := range events {
				if !say(host, e) {
					return
				}
				after = e.Seq
			}
			if len(events) > 0 {
				continue
			}
			select {
			case <-changed:
			case <-done:
				return
			}
		}
	}, sync.OnceFunc(func() { close(done) }))
}
