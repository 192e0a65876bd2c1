package sni

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// turns is how many turns nothing may move in before a connection counts as idle, where nobody says how long one is.
const turns = 4

// pipe is two connections that are one.
type pipe struct {
	a, b  net.Conn
	turn  time.Duration
	moved atomic.Bool // something has, in this turn
	ended atomic.Bool
}

// join copies both ways until both directions have ended, one has failed, or nothing has moved for so many turns. Each counts as one however long it was: a host that stood still has let nothing
// move. The end of a direction is passed on, and the other goes on.
func join(a, b net.Conn, turns int, turn time.Duration) {
	p := &pipe{a: a, b: b, turn: turn}
	watch, quiet := make(chan struct{}), 0
	var timer *time.Timer
	timer = time.AfterFunc(turn, func() {
		<-watch // timer is set
		if quiet++; p.moved.Swap(false) {
			quiet = 0
		}
		switch {
		case p.ended.Load():
		case quiet < turns:
			timer.Reset(turn)
		default:
			p.abort()
		}
	})
	close(watch)
	defer timer.Stop()
	var both sync.WaitGroup
	both.Go(func() { p.copy(a, b) })
	both.Go(func() { p.copy(b, a) })
	both.Wait()
	p.ended.Store(true)
}

// copy lets the kernel copy where it can. A deadline interrupts it now and then, in between two pieces and never within one, to note that something has moved.
func (p *pipe) copy(to, from net.Conn) {
	for {
		from.SetReadDeadline(time.Now().Add(p.turn))
		n, err := io.Copy(to, from)
		if n > 0 {
			p.moved.Store(true)
		}
		if err == nil {
			closeWrite(to)
			return
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			p.abort()
			return
		}
	}
}

// abort ends both sides as an error would, so that neither takes it for a complete stream. It may be called more than once.
func (p *pipe) abort() {
	abort(p.a)
	abort(p.b)
}

func abort(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
	conn.Close()
}

func closeWrite(conn net.Conn) {
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		half.CloseWrite()
	}
}
