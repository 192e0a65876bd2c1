package guest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
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
	taken uint64 // bytes of standard input that the agent has

	mu  sync.Mutex // one frame at a time; an agent that does not read holds it for as long as the connection lives
	out *bufio.Writer
}

// errBroken is a connection that ended before its answer, or before the process did.
var errBroken = errors.New("the connection broke")

// connect makes a connection, and attaches from where each stream is. One that breaks before its answer is tried again for as long as the stream has patience: the
// agent may have started the process, and the same id finds it again.
func (s *stream) connect(ctx context.Context) (*link, error) {
	for begin := time.Now(); ; {
		l, err := s.dial(ctx)
		if !errors.Is(err, errBroken) || time.Since(begin) > s.patience {
			return l, err
		}
		if cause := pause(ctx); cause != nil {
			return nil, fmt.Errorf("%w (last: %w)", cause, err)
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
	conn, in, response, err := request(ctx, s.dialer, "POST", wire.PathExec, &s.request, wire.Upgrade)
	if err != nil {
		if ctx.Err() == nil && !final(err) {
			err = fmt.Errorf("%w: %w", errBroken, err)
		}
		return nil, err
	}
	if response.StatusCode != http.StatusSwitchingProtocols {
		text, _ := io.ReadAll(io.LimitReader(response.Body, wire.MaxBody))
		conn.Close()
		return nil, refused(response.StatusCode, text)
	}
	taken, err := strconv.ParseUint(response.Header.Get(wire.HeaderStdin), 10, 64)
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("%w: %w", ErrAgent, err)
	}
	l := &link{conn: conn, in: in, taken: taken, out: bufio.NewWriterSize(conn, 64<<10)}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.link = l
	return l, nil
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
	if _, err := l.out.Write(frame); err != nil {
		return err
	}
	return l.out.Flush()
}
