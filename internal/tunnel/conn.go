// Package tunnel carries one byte stream in each direction over a connection that has no half-close, as vsock: data and ends are frames of package wire.
//
// There is only one type: a [Conn] is a net.Conn with CloseWrite. [Join] and [Serve] move bytes between it and another.
//
// # Caveats
//
// What holds a writer up is the connection below: a Conn keeps no data of its own, so one stream can't hold another up, and a reader that stalls blocks the writer.
package tunnel

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/wire"
)

const (
	// maxPart is how much data is in a frame.
	maxPart = 32 << 10
	// closePatience is how long Close waits for room for the end.
	closePatience = 5 * time.Second
)

// ErrCut is returned by a read of a stream that was cut off: what came before its end may not be all. It matches io.ErrUnexpectedEOF.
var ErrCut = fmt.Errorf("the tunnel was cut off: %w", io.ErrUnexpectedEOF)

// Conn is a net.Conn over frames. Its deadlines are those of the connection below.
type Conn struct {
	conn   net.Conn
	remote net.Addr
	closed atomic.Bool

	reading sync.Mutex
	in      *bufio.Reader
	left    int // bytes of the present frame that were not read
	eof     bool

	writing sync.Mutex
	header  [wire.HeaderSize]byte
	unsent  int // bytes of the header that were not sent
	owed    int // bytes of data that the header has promised and that were not sent
	ended   bool
	out     []byte
}

var _ net.Conn = (*Conn)(nil)

// New returns a Conn over conn, of which in has read ahead. Remote is what RemoteAddr returns.
func New(conn net.Conn, in *bufio.Reader, remote net.Addr) *Conn {
	return &Conn{conn: conn, in: in, remote: remote}
}

// Read returns io.EOF at the end that the other side has told, and ErrCut when the connection ends without it.
func (c *Conn) Read(p []byte) (int, error) {
	c.reading.Lock()
	defer c.reading.Unlock()
	if len(p) == 0 {
		return 0, nil
	}
	for c.left == 0 {
		if c.eof && !c.closed.Load() {
			return 0, io.EOF
		}
		if err := c.next(); err != nil {
			return 0, c.told(err)
		}
	}
	n, err := c.in.Read(p[:min(len(p), c.left)])
	c.left -= n
	if n > 0 {
		return n, nil
	}
	return 0, c.told(err)
}

// next reads a header. A deadline that passes meanwhile loses nothing.
func (c *Conn) next() error {
	h, err := c.in.Peek(wire.HeaderSize)
	if err != nil {
		return err
	}
	kind, length, err := wire.Header([wire.HeaderSize]byte(h))
	if err != nil {
		return err
	}
	switch {
	case c.eof:
		return fmt.Errorf("%w: kind %d after the end", wire.ErrFrame, kind)
	case kind == wire.Data:
		c.left = length
	case kind == wire.DataEnd && length == 0:
		c.eof = true
	default:
		return fmt.Errorf("%w: kind %d in a tunnel", wire.ErrFrame, kind)
	}
	c.in.Discard(wire.HeaderSize)
	return nil
}

// told says why a call fails.
func (c *Conn) told(err error) error {
	switch {
	case c.closed.Load():
		return net.ErrClosed
	case errors.Is(err, io.EOF):
		return ErrCut
	}
	return err
}

// Write writes p in frames. After a deadline has passed within a frame the next Write goes on with it.
func (c *Conn) Write(p []byte) (n int, err error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	for n < len(p) {
		if c.ended || c.closed.Load() {
			return n, net.ErrClosed
		}
		sent, err := c.send(p[n:min(len(p), n+maxPart)])
		n += sent
		if err != nil {
			return n, c.told(err)
		}
	}
	return n, nil
}

// send sends what it can of one frame, and returns how much of the part that was.
func (c *Conn) send(part []byte) (int, error) {
	fresh := c.owed == 0
	if fresh {
		c.promise(wire.Data, len(part))
	}
	part = part[:min(len(part), c.owed)]
	n, err := c.flush(part)
	if n == 0 && err != nil && fresh && c.unsent == wire.HeaderSize {
		c.unsent, c.owed = 0, 0 // nobody has heard of it
	}
	return n, err
}

// promise begins a frame.
func (c *Conn) promise(kind wire.Kind, length int) {
	c.header[0] = byte(kind)
	binary.BigEndian.PutUint32(c.header[1:], uint32(length))
	c.unsent, c.owed = wire.HeaderSize, length
}

// flush sends the rest of the header, and a part of its data.
func (c *Conn) flush(part []byte) (int, error) {
	head := c.header[wire.HeaderSize-c.unsent:]
	c.out = append(append(c.out[:0], head...), part...)
	n, err := c.conn.Write(c.out)
	ofHead := min(n, len(head))
	c.unsent -= ofHead
	c.owed -= n - ofHead
	return n - ofHead, err
}

// CloseWrite tells the other side that no more will be written. It fails when a Write was cut short by a deadline within a frame: the other side would wait for the rest.
func (c *Conn) CloseWrite() error {
	c.writing.Lock()
	defer c.writing.Unlock()
	if c.closed.Load() {
		return net.ErrClosed
	}
	return c.end()
}

func (c *Conn) end() error {
	if c.ended && c.unsent == 0 {
		return nil
	}
	if c.owed > 0 {
		return fmt.Errorf("%w: a write was left unfinished", ErrCut)
	}
	if !c.ended {
		c.ended = true
		c.promise(wire.DataEnd, 0)
	}
	_, err := c.flush(nil)
	return err
}

// Close tells the end, as CloseWrite does, unless a Write is under way, and closes the connection. It waits up to 5 seconds for a connection that takes nothing.
func (c *Conn) Close() error {
	if c.closed.Swap(true) {
		return nil
	}
	c.conn.SetReadDeadline(time.Now()) // who reads returns at once
	if c.writing.TryLock() {
		if !c.ended {
			c.conn.SetWriteDeadline(time.Now().Add(closePatience))
			c.end()
		}
		c.writing.Unlock()
	}
	return c.conn.Close()
}

// Cut closes the connection without telling an end: the other side reads ErrCut, unless it was told before.
func (c *Conn) Cut() error {
	if c.closed.Swap(true) {
		return nil
	}
	return c.conn.Close()
}

// gone waits until the other side, which has told its end, closes the connection.
func (c *Conn) gone() {
	c.reading.Lock()
	defer c.reading.Unlock()
	c.in.Peek(1) // nothing may come after the end
}

// LocalAddr returns the address of the connection below.
func (c *Conn) LocalAddr() net.Addr { return c.conn.LocalAddr() }

// RemoteAddr returns what the tunnel leads to.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline sets both deadlines.
func (c *Conn) SetDeadline(t time.Time) error { return c.conn.SetDeadline(t) }

// SetReadDeadline sets when a Read gives up.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.conn.SetReadDeadline(t) }

// SetWriteDeadline sets when a Write gives up.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.conn.SetWriteDeadline(t) }
