//go:build linux

package agent

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"sync"
	"sync/atomic"

	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// attachment is one connection of the host to a process. A newer one ends it.
type attachment struct {
	process *process
	conn    net.Conn
	gone    atomic.Bool

	mu  sync.Mutex // one frame at a time
	out *bufio.Writer
}

// adopt makes conn the process's connection, in place of an older one. It returns how much standard input has come: the host goes on from there.
func (p *process) adopt(conn net.Conn) (a *attachment, received uint64) {
	a = &attachment{process: p, conn: conn, out: bufio.NewWriterSize(conn, 128<<10)}
	p.mu.Lock()
	before := p.attached
	p.attached, received = a, p.received
	p.mu.Unlock()
	if before != nil {
		before.leave()
	}
	return a, received
}

// serve serves the connection until it breaks, or the host says that it has all: then it returns true.
func (a *attachment) serve(in *bufio.Reader, stdout, stderr uint64) (done bool) {
	a.process.mu.Lock()
	read := a.process.read
	a.process.mu.Unlock()
	a.frame(wire.AppendAck(nil, wire.AckStdin, read)) // what was said on the connection before may not have come
	var sending sync.WaitGroup
	ends := make(chan struct{}, 2)
	sending.Go(func() { a.send(a.process.stdout, wire.Stdout, wire.StdoutEnd, stdout, ends) })
	sending.Go(func() { a.send(a.process.stderr, wire.Stderr, wire.StderrEnd, stderr, ends) })
	sending.Go(func() { a.sendExit(ends) })
	done = a.receive(in)
	a.leave()
	sending.Wait()
	return done
}

// leave ends the attachment, from any goroutine.
func (a *attachment) leave() {
	if a.gone.Swap(true) {
		return
	}
	a.conn.Close()
	a.process.stdout.Wake()
	a.process.stderr.Wake()
}

// send sends one stream from an offset on, until its end or the attachment's.
func (a *attachment) send(buffer *wire.Buffer, data, end wire.Kind, offset uint64, ends chan<- struct{}) {
	defer func() { ends <- struct{}{} }()
	part := make([]byte, 32<<10)
	for {
		n, err := buffer.ReadAt(part, offset, a.gone.Load)
		if err == io.EOF {
			a.frame(wire.Append(nil, end, nil))
			return
		}
		if err != nil {
			a.leave()
			return
		}
		a.frame(wire.Append(nil, data, part[:n]))
		offset += uint64(n)
	}
}

// sendExit comes after both streams' ends.
func (a *attachment) sendExit(ends <-chan struct{}) {
	<-ends
	<-ends
	if a.gone.Load() {
		return
	}
	<-a.process.exited // comes soon: both streams have ended
	a.process.mu.Lock()
	text, _ := json.Marshal(a.process.exit)
	a.process.mu.Unlock()
	a.frame(wire.Append(nil, wire.Exited, text))
}

func (a *attachment) frame(frame []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, err := a.out.Write(frame)
	if err == nil {
		err = a.out.Flush()
	}
	if err != nil {
		go a.leave() // leave wakes this goroutine's own kind; it must not wait for it
	}
}

// receive takes the host's frames.
func (a *attachment) receive(in *bufio.Reader) (done bool) {
	frames := wire.NewReader(in)
	for {
		f, err := frames.Read()
		if err != nil {
			return false
		}
		good := true
		switch f.Kind {
		case wire.Stdin:
			good = a.process.receive(a, f.Payload)
		case wire.StdinEnd:
			a.process.input.End()
		case wire.AckStdout:
			good = ack(a.process.stdout, f) == nil
		case wire.AckStderr:
			good = ack(a.process.stderr, f) == nil
		case wire.Done:
			return true
		default:
			good = false
		}
		if !good {
			return false
		}
	}
}

func ack(buffer *wire.Buffer, f wire.Frame) error {
	offset, err := f.Ack()
	if err != nil {
		return err
	}
	return buffer.Ack(offset)
}
