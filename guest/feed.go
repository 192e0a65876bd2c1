package guest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"sync"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// feed is what the agent tells on a connection on which the host says nothing. It is made again when it breaks.
type feed struct {
	ctx  context.Context // its life
	open func(ctx context.Context) (net.Conn, *bufio.Reader, error)

	frames *wire.Reader
	mu     sync.Mutex
	conn   net.Conn
	stop   func() bool
}

// newFeed makes the first connection; it lives until ctx ends, or close is called.
func newFeed(ctx context.Context, open func(context.Context) (net.Conn, *bufio.Reader, error)) (*feed, error) {
	f := &feed{ctx: ctx, open: open, stop: func() bool { return true }}
	return f, f.connect()
}

func (f *feed) connect() error {
	conn, in, err := f.open(f.ctx)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.conn, f.frames = conn, wire.NewReader(in)
	f.stop = context.AfterFunc(f.ctx, func() { conn.Close() })
	return nil
}

// again makes the connection again, for as long as patience allows. The agent may not have noticed yet that the one before is no more.
func (f *feed) again() error {
	f.close()
	if err := pause(f.ctx); err != nil {
		return err
	}
	_, err := persist(f.ctx, reconnectPatience, func() (struct{}, error) {
		err := f.connect()
		if errors.Is(err, microvm.ErrBusy) {
			err = fmt.Errorf("%w: %w", errBroken, err)
		}
		return struct{}{}, err
	})
	return err
}

// heard returns what the agent tells next, which is valid until it is called again: io.EOF when there is no more, errBroken when the connection broke.
func heard(frames *wire.Reader) ([]byte, error) {
	frame, err := frames.Read()
	switch {
	case errors.Is(err, wire.ErrFrame):
		return nil, fmt.Errorf("%w: %w", ErrAgent, err)
	case err != nil:
		return nil, fmt.Errorf("%w: %w", errBroken, err)
	case frame.Kind == wire.DataEnd:
		return nil, io.EOF
	case frame.Kind != wire.Event:
		return nil, fmt.Errorf("%w: kind %d among events", ErrAgent, frame.Kind)
	}
	return frame.Payload, nil
}

func (f *feed) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stop()
	if f.conn != nil {
		f.conn.Close()
	}
}

// all returns what the agent tells, until ctx ends, the iteration is left, or there is no more. decode makes of each text what is said of it, which may be nothing or several; of nil, too, which
// stands for a connection that was made again. fail says what an error is about.
func all[T any](f *feed, decode func(text []byte) ([]T, error), fail func(error) error) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		defer f.close()
		for {
			text, err := heard(f.frames)
			if errors.Is(err, errBroken) {
				text, err = nil, f.again()
			}
			if err == io.EOF || f.ctx.Err() != nil {
				return
			}
			var events []T
			if err == nil {
				events, err = decode(text)
			}
			if err != nil {
				yield(*new(T), fail(err))
				return
			}
			for _, event := range events {
				if !yield(event, nil) || f.ctx.Err() != nil {
					return
				}
			}
		}
	}
}
