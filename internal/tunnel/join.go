package tunnel

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
)

// Join moves bytes between two connections until both directions have ended, or one connection breaks, or ctx ends; then both are closed. An end is passed on as a
// half-close, and a break as a break. A connection without CloseWrite is closed when there is no more to write to it.
func Join(ctx context.Context, a, b net.Conn) {
	join(ctx, a, b, nil)
}

// Serve is Join for the guest's side of a tunnel, which leaves it to the host to close the connection: what is on its way to a host that reads late would be lost with it.
// So it also notices that the host has gone.
func Serve(ctx context.Context, target net.Conn, c *Conn) {
	join(ctx, target, c, c.gone)
}

// joint is two connections that belong together.
type joint struct {
	a, b net.Conn
	once sync.Once

	mu    sync.Mutex
	ended map[net.Conn]bool // nothing more comes of it
	deaf  map[net.Conn]bool // it takes nothing more: what comes for it is dropped
	shut  map[net.Conn]bool // it has no half-close, and was closed in place of one
}

func join(ctx context.Context, a, b net.Conn, gone func()) {
	j := &joint{a: a, b: b, ended: map[net.Conn]bool{}, deaf: map[net.Conn]bool{}, shut: map[net.Conn]bool{}}
	stop := context.AfterFunc(ctx, func() { j.close(Cut) })
	defer stop()
	var moving sync.WaitGroup
	moving.Go(func() { j.move(b, a) })
	moving.Go(func() {
		j.move(a, b)
		if gone != nil {
			gone()
			j.close(net.Conn.Close)
		}
	})
	moving.Wait()
	j.close(net.Conn.Close)
}

// move moves one direction to its end.
func (j *joint) move(to, from net.Conn) {
	part := make([]byte, maxPart)
	for {
		n, err := from.Read(part)
		if n > 0 && !j.is(j.deaf, to) {
			if _, failed := to.Write(part[:n]); failed != nil && lost(to, failed) {
				j.close(Cut)
				return
			} else if failed != nil {
				j.deafen(to) // what it has said is moved all the same
			}
		}
		switch {
		case errors.Is(err, io.EOF), err != nil && j.is(j.shut, from):
			j.finish(to, from)
			return
		case err != nil:
			j.close(Cut)
			return
		}
	}
}

// lost says whether a failed write left a tunnel alive, for want of memory in a guest's kernel, say: its other side would wait for the rest, or take an end for all there was.
func lost(to net.Conn, err error) bool {
	_, ok := to.(*Conn)
	return ok && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET)
}

func (j *joint) is(what map[net.Conn]bool, c net.Conn) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return what[c]
}

// deafen notes that a connection takes nothing more. When nothing comes of it either, that is all.
func (j *joint) deafen(c net.Conn) {
	j.mu.Lock()
	j.deaf[c] = true
	all := j.ended[c]
	j.mu.Unlock()
	if all {
		j.close(Cut)
	}
}

// finish passes an end on.
func (j *joint) finish(to, from net.Conn) {
	j.mu.Lock()
	j.ended[from] = true
	all := j.deaf[from]
	half, ok := to.(interface{ CloseWrite() error })
	j.shut[to] = !ok
	j.mu.Unlock()
	if !ok {
		to.Close()
	} else if half.CloseWrite() != nil {
		j.deafen(to)
	}
	if all {
		j.close(Cut)
	}
}

// close ends both at once.
func (j *joint) close(how func(net.Conn) error) {
	j.once.Do(func() {
		how(j.a)
		how(j.b)
	})
}

// Cut closes a connection so that its other side can tell it from an end, where it can.
func Cut(c net.Conn) error {
	if t, ok := c.(*Conn); ok {
		return t.Cut()
	}
	if t, ok := c.(interface{ SetLinger(sec int) error }); ok {
		t.SetLinger(0)
	}
	return c.Close()
}
