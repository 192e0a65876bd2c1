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

// pipe is two connections that are one.
type pipe struct {
	a, b  net.Conn
	idle  time.Duration
	moved atomic.Int64 // when something last did, in nanoseconds since start
	start time.Time
	ended atomic.Bool
}

// join copies both ways until both directions have ended, one has failed, or nothing has moved for so long. The end of a direction is passed on, and the other goes on.
func join(a, b net.Conn, idle time.Duration) {
	p := &pipe{a: a, b: b, idle: idle, start: time.Now()}
	watch := make(chan struct{})
	var timer *time.Timer
	timer = time.AfterFunc(idle, func() {
		<-watch // timer is set
		if p.ended.Load() {
			return
		}
		if left := idle - (time.Since(p.start) - time.Duration(p.moved.Load())); left > 0 {
			timer.Reset(left)
			return
		}
		p.abort()
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
		from.SetReadDeadline(time.Now().Add(p.idle / 4))
		n, err := io.Copy(to, from)
		if n > 0 {
			p.moved.Store(int64(time.Since(p.start)))
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
