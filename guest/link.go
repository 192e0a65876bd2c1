package guest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// link is one connection to a process, from the agent's answer on.
type link struct {
	conn  net.Conn
	in    *bufio.Reader
	taken uint64         // bytes of standard input that the agent has
	told  *wire.Attached // nil from an older agent

	sizes sync.Mutex // one size at a time

	mu     sync.Mutex // one frame at a time; an agent that does not read holds it for as long as the connection lives
	failed error      // why no frame can follow
}

// errBroken is a connection that ended before its answer, or before the process did.
var errBroken = errors.New("no connection to the guest's agent")

// connect makes a connection, and attaches from where each stream is.
func (s *stream) connect(ctx context.Context) (*link, error) {
	return persist(ctx, s.patience, func() (*link, error) { return s.dial(ctx) })
}

// persist asks again for so long when the connection breaks before its answer. A process that the agent has started meanwhile is found again by its id.
func persist[T any](ctx context.Context, patience time.Duration, ask func() (T, error)) (T, error) {
	for begin := time.Now(); ; {
		answer, err := ask()
		if cause := context.Cause(ctx); err != nil && cause != nil && !errors.Is(err, cause) { // it ended while it was asked
			return answer, fmt.Errorf("%w (last: %w)", cause, err)
		}
		if !errors.Is(err, errBroken) || time.Since(begin) > patience {
			return answer, err
		}
		if cause := pause(ctx); cause != nil {
			return answer, fmt.Errorf("%w (last: %w)", cause, err)
		}
	}
}

// pause waits before the next attempt; it is not worth one when ctx has ended.
func pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(20 * time.Millisecond):
		return nil
	}
}

func (s *stream) dial(ctx context.Context) (*link, error) {
	s.request.Stdout, s.request.Stderr = s.stdout.got, s.stderr.got
	s.request.Attempt++
	conn, in, response, err := request(ctx, dialed{s.dialer, &s.asked}, "POST", wire.PathExec, &s.request, wire.Upgrade)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusSwitchingProtocols {
		s.asked = false
		text, err := content(ctx, conn, response)
		conn.Close()
		if err != nil {
			return nil, err
		}
		return nil, refused(response.StatusCode, text)
	}
	l := &link{conn: conn, in: in}
	if err := l.read(response.Header); err != nil {
		conn.Close()
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.continues(l); err != nil {
		conn.Close()
		return nil, err
	}
	s.link = l
	return l, nil
}

// dialed notes that there was a connection.
type dialed struct {
	Dialer
	was *bool
}

func (d dialed) Dial(ctx context.Context, port uint32) (net.Conn, error) {
	conn, err := d.Dialer.Dial(ctx, port)
	*d.was = *d.was || err == nil
	return conn, err
}

// continues refuses a connection on which standard input can't go on: no agent has more of it than was sent, or asks again for what it had. The first attachment to a
// process begins wherever it is.
func (s *stream) continues(l *link) error {
	if !s.request.Stdin || s.request.Attach && s.link == nil {
		return nil
	}
	if begin, end := s.input.Kept(); l.taken < begin || l.taken > end {
		return fmt.Errorf("%w: it has %d bytes of the standard input, of which it was sent %d to %d", ErrAgent, l.taken, begin, end)
	}
	return nil
}

// read reads where the agent says that the process's streams are.
func (l *link) read(header http.Header) (err error) {
	if l.taken, err = strconv.ParseUint(header.Get(wire.HeaderStdin), 10, 64); err != nil {
		return fmt.Errorf("%w: %w", ErrAgent, err)
	}
	text := header.Get(wire.HeaderAttached)
	if text == "" {
		return nil // an older agent
	}
	if err := json.Unmarshal([]byte(text), &l.told); err != nil {
		return fmt.Errorf("%w: %w", ErrAgent, err)
	}
	const most = 1 << 62 // no stream comes so far, and sums stay numbers
	if l.told != nil && max(l.told.Stdout, l.told.Stderr) > most {
		return fmt.Errorf("%w: offsets %d and %d", ErrAgent, l.told.Stdout, l.told.Stderr)
	}
	return nil
}

// broken marks an error of a connection, unless trying again is of no use.
func broken(ctx context.Context, err error) error {
	if ctx.Err() != nil || final(err) {
		return err
	}
	return fmt.Errorf("%w: %w", errBroken, err)
}

// final says that trying again is of no use: the machine is gone, or was never there, or the request makes no sense.
func final(err error) bool {
	for _, sentinel := range []error{microvm.ErrInvalid, microvm.ErrExited, microvm.ErrState, microvm.ErrNotFound, microvm.ErrClosed, microvm.ErrUnsupported, ErrAgent} {
		if errors.Is(err, sentinel) {
			return true
		}
	}
	return false
}

// frame waits until the agent reads, or the connection ends.
func (l *link) frame(frame []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed == nil { // else it was in the middle of a frame, it may be
		_, l.failed = l.conn.Write(frame)
	}
	return l.failed
}
