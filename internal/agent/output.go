//go:build linux

package agent

import (
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// linger is how long after the process's end a silent descendant may hold its output open.
const linger = 2 * time.Second

// collector moves a pipe, or a terminal, into a buffer. A descendant may hold it open after the process's end; that is part of the stream.
type collector struct {
	pipe   *os.File
	from   io.Reader // the pipe, as it is read
	buffer *wire.Buffer
	linger time.Duration
	ended  atomic.Bool // the process has
}

func newCollector(pipe *os.File, terminal bool, buffer *wire.Buffer) *collector {
	c := &collector{pipe: pipe, from: pipe, buffer: buffer, linger: linger}
	if terminal {
		c.from = terminalOutput{pipe}
	}
	return c
}

func (c *collector) run() {
	defer c.buffer.End()
	defer c.pipe.Close()
	var part []byte
	for n := 0; ; {
		part = wire.NextPart(part, n, maxPart)
		if c.ended.Load() {
			c.pipe.SetReadDeadline(time.Now().Add(c.linger))
		}
		var err error
		n, err = c.from.Read(part)
		if errors.Is(err, os.ErrDeadlineExceeded) { // which is said before anything is read
			n, err = left(c.pipe, part)
		}
		if _, dropped := c.buffer.Write(part[:n]); err != nil || dropped != nil {
			return
		}
	}
}

// left reads what is in a pipe, or a terminal, without waiting.
func left(pipe *os.File, part []byte) (n int, err error) {
	err = control(pipe, func(fd int) (err error) {
		n, err = syscall.Read(fd, part)
		return err
	})
	if err == nil && n == 0 {
		err = io.EOF
	}
	return max(n, 0), err
}

// finish waits for the rest of the output, but not for descendants that stay and say nothing.
func finish(collectors []*collector, reading *sync.WaitGroup) {
	for _, c := range collectors {
		c.ended.Store(true)
		c.pipe.SetReadDeadline(time.Now().Add(c.linger)) // of the present read
	}
	reading.Wait()
}

// terminalOutput reads our side of a terminal. Linux looks for input first, then whether the other side is closed: EIO may come before what was written in between, but not twice.
type terminalOutput struct{ io.Reader }

func (t terminalOutput) Read(p []byte) (int, error) {
	n, err := t.Reader.Read(p)
	if errors.Is(err, syscall.EIO) {
		n, err = t.Reader.Read(p)
	}
	return n, err
}
