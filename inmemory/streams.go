package inmemory

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"
	"net"
	"sync"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
)

// Console reads the console of the last run.
func (d *driver) Console(ctx context.Context, uid string, o microvm.ConsoleOptions) (io.ReadCloser, error) {
	m, err := d.find(ctx, "console", uid)
	if err != nil {
		return nil, err
	}
	defer d.mu.Unlock()
	if m.info.State == microvm.StateCreated {
		return nil, stateError("read the console of", m.info.State)
	}
	text := m.console
	if o.Tail > 0 {
		text = text[max(0, len(text)-o.Tail):]
	}
	r := &consoleReader{Reader: bytes.NewReader(text), ctx: ctx, quit: make(chan struct{})}
	if o.Follow {
		r.ended, r.closed = m.ended, d.closed
	}
	return r, nil
}

// consoleReader ends with the run when it follows.
type consoleReader struct {
	*bytes.Reader
	ctx           context.Context
	ended, closed <-chan struct{}
	once          sync.Once
	quit          chan struct{}
}

func (r *consoleReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if n > 0 || err != io.EOF || r.ended == nil {
		return n, err
	}
	select {
	case <-r.ended:
		return 0, io.EOF
	default:
	}
	select {
	case <-r.ended:
		return 0, io.EOF
	case <-r.closed:
		return 0, microvm.ErrClosed
	case <-r.ctx.Done():
		return 0, context.Cause(r.ctx)
	case <-r.quit:
		return 0, net.ErrClosed
	}
}

func (r *consoleReader) Close() error {
	r.once.Do(func() { close(r.quit) })
	return nil
}

// watcher holds events that its iteration has not come to yet.
type watcher struct {
	events []microvm.Event
	more   chan struct{} // holds a token when there are events
}

// tell hands an event to all watchers, under the lock.
func (s *Store) tell(m *machine, what microvm.EventType, exit *microvm.Exit) {
	event := microvm.Event{Time: time.Now(), Type: what, UID: m.info.UID, Name: m.info.Name, Exit: exit, Labels: m.info.Spec.Copy().Labels}
	for w := range s.watchers {
		w.events = append(w.events, event)
		select {
		case w.more <- struct{}{}:
		default:
		}
	}
}

// Watch tells everything from its call on.
func (d *driver) Watch(ctx context.Context) (iter.Seq2[microvm.Event, error], error) {
	if err := d.enter(ctx, "watch", ""); err != nil {
		return nil, err
	}
	defer d.mu.Unlock()
	w := &watcher{more: make(chan struct{}, 1)}
	if d.watchers == nil {
		d.watchers = map[*watcher]bool{}
	}
	d.watchers[w] = true
	forget := func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.watchers, w)
	}
	stop := context.AfterFunc(ctx, forget)
	return func(yield func(microvm.Event, error) bool) {
		defer forget()
		defer stop()
		for ctx.Err() == nil {
			d.mu.Lock()
			events := w.events
			w.events = nil
			d.mu.Unlock()
			for _, event := range events {
				if ctx.Err() != nil || !yield(event, nil) {
					return
				}
			}
			select {
			case <-w.more:
			case <-d.closed:
				return
			case <-ctx.Done():
			}
		}
	}, nil
}

// Listen accepts nothing, as no guest connects, until it is closed or the run ends.
func (d *driver) Listen(ctx context.Context, uid string, port uint32) (net.Listener, error) {
	m, err := d.find(ctx, "listen", uid)
	if err != nil {
		return nil, err
	}
	defer d.mu.Unlock()
	switch {
	case !m.runs():
		return nil, stateError("listen for", m.info.State)
	case m.ports[port] != nil:
		return nil, fmt.Errorf("port %d: %w", port, microvm.ErrExists)
	}
	l := &listener{port: port, closed: make(chan struct{})}
	m.ports[port] = l
	return l, nil
}

type listener struct {
	port   uint32
	once   sync.Once
	closed chan struct{}
}

func (l *listener) Accept() (net.Conn, error) {
	<-l.closed
	return nil, net.ErrClosed
}

func (l *listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *listener) Addr() net.Addr { return addr(l.port) }

// addr is a vsock port of the host.
type addr uint32

func (addr) Network() string  { return "vsock" }
func (a addr) String() string { return fmt.Sprintf("host(2):%d", uint32(a)) }
