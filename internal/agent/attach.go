//go:build linux

package agent

import (
	"bufio"
	"encoding/json"
	"errors"
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

// attach serves the connection until it breaks or the host says that it has all: then it returns true.
func (p *process) attach(conn net.Conn, in *bufio.Reader, stdout, stderr, stdin uint64) (done bool) {
	a := &attachment{process: p, conn: conn, out: bufio.NewWriterSize(conn, 128<<10)}
	p.mu.Lock()
	before := p.attached
	p.attached = a
	p.mu.Unlock()
	if before != nil {
		before.leave()
	}
	var sending sync.WaitGroup
	ends := make(chan struct{}, 2)
	sending.Go(func() { a.send(p.stdout, wire.Stdout, wire.StdoutEnd, stdout, ends) })
	sending.Go(func() { a.send(p.stderr, wire.Stderr, wire.StderrEnd, stderr, ends) })
	sending.Go(func() { a.sendExit(ends) })
	done = a.receive(in, stdin)
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
	<-a.process.exited
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

// receive takes the host's frames. Standard input is written to the process by a goroutine of its own, so that acknowledgements are not held up by a process that does
// not read.
func (a *attachment) receive(in *bufio.Reader, offset uint64) (done bool) {
	input := wire.NewBuffer()
	var feeding sync.WaitGroup
	feeding.Go(func() { a.feed(input, offset) })
	defer feeding.Wait()
	defer input.Close()
	frames := wire.NewReader(in)
	for {
		f, err := frames.Read()
		if err != nil {
			return false
		}
		switch f.Kind {
		case wire.Stdin:
			if !input.Fits(len(f.Payload)) { // the host sent more than the window
				return false
			}
			_, err = input.Write(f.Payload)
		case wire.StdinEnd:
			input.End()
		case wire.AckStdout:
			err = ack(a.process.stdout, f)
		case wire.AckStderr:
			err = ack(a.process.stderr, f)
		case wire.Done:
			return true
		default:
			err = wire.ErrFrame
		}
		if err != nil {
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

// feed moves input to the process and acknowledges it. Offset is where this connection's input begins in the stream.
func (a *attachment) feed(input *wire.Buffer, offset uint64) {
	part := make([]byte, 32<<10)
	for at := uint64(0); ; {
		n, err := input.ReadAt(part, at, nil)
		if err != nil {
			if err == io.EOF && !a.gone.Load() && !input.Closed() {
				a.process.endInput()
			}
			return
		}
		taken, err := a.process.feed(part[:n], offset+at)
		if errors.Is(err, wire.ErrOffset) {
			a.leave()
			return
		}
		at += uint64(n)
		input.Ack(at)
		a.frame(wire.AppendAck(nil, wire.AckStdin, taken))
	}
}
