//go:build linux

package agent

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// maxPart is the size of the largest part that a stream is moved in, in bytes.
const maxPart = 32 << 10

// togetherPatience is how long the end of a stream may wait for the other's and for the exit, to go with them in one write.
const togetherPatience = time.Millisecond

// attachment is one connection of the host to a process. A newer one ends it.
type attachment struct {
	process *process
	conn    net.Conn
	nonce   string // whose it is
	attempt uint64 // which one of theirs
	from    wire.Attached
	gone    atomic.Bool // nothing is sent any more

	mu     sync.Mutex // one frame at a time
	failed bool       // and none after one that failed
}

// keeps refuses a host that goes on from where it can't. The host that is attached stays so.
func (p *process) keeps(request *wire.Exec) error {
	if request.Attach && request.Stdin && p.stdin == nil {
		return refuse(wire.CodeInvalid, "process %s has no standard input", p.id)
	}
	if request.Attach && request.TTY != nil && !p.terminal {
		return refuse(wire.CodeInvalid, "process %s has no terminal", p.id)
	}
	if request.Kept {
		return nil
	}
	for name, offset := range map[string]uint64{"standard output": request.Stdout, "standard error": request.Stderr} {
		buffer := p.stdout
		if name != "standard output" {
			buffer = p.stderr
		}
		if begin, end := buffer.Kept(); offset < begin || offset > end {
			return refuse(wire.CodeGone, "%s of process %s from byte %d on is not there, but from %d to %d", name, p.id, offset, begin, end)
		}
	}
	return nil
}

// adopt makes conn the process's connection, in place of an older one, and answers the host. It returns nil when the host has made a later one already.
func (p *process) adopt(conn net.Conn, request *wire.Exec) *attachment {
	a := &attachment{process: p, conn: conn, nonce: request.Nonce, attempt: request.Attempt}
	a.mu.Lock() // no frame comes before the answer
	defer a.mu.Unlock()
	p.mu.Lock()
	before := p.attached
	own := before != nil && a.nonce != "" && before.nonce == a.nonce
	if own && before.attempt > a.attempt {
		p.mu.Unlock()
		return nil
	}
	p.attached = a
	a.from = wire.Attached{Stdin: p.received, StdinOpen: p.stdin != nil && !p.inputEnded, TTY: p.terminal, Stdout: request.Stdout, Stderr: request.Stderr}
	if request.Kept {
		a.from.Stdout, _ = p.stdout.Kept()
		a.from.Stderr, _ = p.stderr.Kept()
	}
	p.mu.Unlock()
	switch {
	case own:
		before.leave() // the host has left it already
	case before != nil:
		before.replaced()
	}
	text, _ := json.Marshal(a.from)
	_, err := fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n%s: %d\r\n%s: %s\r\n\r\n",
		wire.Upgrade, wire.HeaderStdin, a.from.Stdin, wire.HeaderAttached, text)
	a.failed = err != nil
	return a
}

// serve serves the connection until it breaks, or the host says that it has all: then it returns true.
func (a *attachment) serve(in *bufio.Reader) (done bool) {
	a.process.mu.Lock()
	read := a.process.read
	a.process.mu.Unlock()
	if read > 0 {
		a.frame(wire.AppendAck(nil, wire.AckStdin, read)) // what was said on the connection before may not have come
	}
	var sending sync.WaitGroup
	ends := make(chan wire.Kind, 2)
	sending.Go(func() { a.send(a.process.stdout, wire.Stdout, wire.StdoutEnd, a.from.Stdout, ends) })
	sending.Go(func() { a.send(a.process.stderr, wire.Stderr, wire.StderrEnd, a.from.Stderr, ends) })
	sending.Go(func() { a.sendEnds(ends) })
	done = a.receive(in)
	a.leave()
	sending.Wait()
	a.process.left(a)
	return done
}

// replaced tells the host that another connection has taken its place, so that it does not come back. One that made that connection itself does not hear it.
func (a *attachment) replaced() {
	const patience = time.Second
	a.stop()
	a.conn.SetWriteDeadline(time.Now().Add(patience)) // also of a frame that is under way
	go func() {
		a.frame(wire.Append(nil, wire.Replaced, nil))
		a.leave()
	}()
}

// stop ends sending, from any goroutine. What the host has sent before is still read.
func (a *attachment) stop() {
	a.gone.Store(true)
	a.process.stdout.Wake()
	a.process.stderr.Wake()
}

// leave ends the attachment, from any goroutine.
func (a *attachment) leave() {
	a.conn.Close()
	a.stop()
}

// send sends one stream from an offset on, until its end, which is for sendEnds to tell, or the attachment's.
func (a *attachment) send(buffer *wire.Buffer, data, end wire.Kind, offset uint64, ends chan<- wire.Kind) {
	var ended wire.Kind // none when the attachment ends
	defer func() { ends <- ended }()
	var part []byte
	for n := 0; ; {
		part = wire.NextPart(part, n, maxPart)
		var err error
		n, err = buffer.ReadAt(part, offset, a.gone.Load)
		if err == io.EOF {
			ended = end
			return
		}
		if errors.Is(err, wire.ErrOffset) {
			a.leave()
		}
		if err != nil {
			return
		}
		a.frame(wire.Append(nil, data, part[:n]))
		offset += uint64(n)
	}
}

// sendEnds sends the ends of both streams, then the exit: together, where they come together, as most do.
func (a *attachment) sendEnds(ends <-chan wire.Kind) {
	var frames []byte
	var late <-chan time.Time
	var exited <-chan struct{} // once both streams have ended
	for streams := 2; ; {
		select {
		case kind := <-ends:
			if kind != 0 {
				frames = wire.Append(frames, kind, nil)
			}
			late = time.After(togetherPatience)
			if streams--; streams > 0 {
				continue
			}
			if a.gone.Load() {
				return
			}
			exited = a.process.exited // comes soon
		case <-late:
			a.frame(frames)
			frames = nil
		case <-exited:
			a.process.mu.Lock()
			text, _ := json.Marshal(a.process.exit)
			a.process.mu.Unlock()
			a.frame(wire.Append(frames, wire.Exited, text))
			return
		}
	}
}

func (a *attachment) frame(frame []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.failed { // in the middle of a frame, it may be
		return
	}
	_, err := a.conn.Write(frame)
	a.failed = err != nil
	switch {
	case err == nil:
	case errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ECONNRESET):
		a.stop() // the host may have said Done before it went
	default:
		a.leave() // the connection lives, and the host would wait for the rest of the frame: it is to come back instead
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
		if f.Kind == wire.Done {
			return a.process.attachedTo(a)
		}
		if !a.process.take(a, f) {
			return false
		}
	}
}
