package guest

import (
	"context"
	"errors"
	"fmt"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// TTY is the size of a terminal's window, in characters.
type TTY struct {
	Rows, Cols int // 1 to 65535.
}

func (t TTY) check() error {
	for field, n := range map[string]int{"TTY.Rows": t.Rows, "TTY.Cols": t.Cols} {
		if n < 1 || n > 65535 {
			return &microvm.FieldError{Field: field, Value: n, Reason: "must be 1 to 65535"}
		}
	}
	return nil
}

func (t TTY) wire() *wire.TTY { return &wire.TTY{Rows: uint16(t.Rows), Cols: uint16(t.Cols)} }

// Resize tells the command's terminal that its window has another size. While the connection is broken the size is kept for the next.
func (c *Cmd) Resize(ctx context.Context, rows, cols int) error {
	if c.stream == nil || c.left() {
		return errors.New("guest: not started, or detached")
	}
	size := TTY{rows, cols}
	if err := size.check(); err != nil {
		return fmt.Errorf("resize: %w", err)
	}
	if !c.stream.terminal {
		return fmt.Errorf("resize: %w: the command has no terminal", microvm.ErrInvalid)
	}
	l := c.stream.resized(*size.wire())
	sent := make(chan struct{})
	go func() { // ends with the connection
		defer close(sent)
		c.stream.sendSize(l)
	}()
	select {
	case <-sent:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("resize: %w", context.Cause(ctx))
	}
}

// resized notes a size, and returns the present link.
func (s *stream) resized(size wire.TTY) *link {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.size = &size
	return s.link
}

// sendSize sends the newest size, if there was any. What a broken connection loses is said again on the next.
func (s *stream) sendSize(l *link) {
	l.sizes.Lock() // a size that is read later is sent later
	defer l.sizes.Unlock()
	s.mu.Lock()
	size := s.size
	s.mu.Unlock()
	if size != nil {
		l.frame(wire.AppendResize(nil, *size))
	}
}
