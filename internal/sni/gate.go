package sni

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/quota"
)

// Options are how a [Gate] judges. Required are Original, Allowed and Dial.
type Options struct {
	// Original returns where a connection was going before it was sent to the gate.
	Original func(net.Conn) (netip.AddrPort, error)
	// Allowed says whether a client that asks for the name may go there. The name is as the client says it.
	Allowed func(name string, to netip.AddrPort) bool
	// Dial connects to where the connection was going. It keeps to the context.
	Dial func(ctx context.Context, to netip.AddrPort) (net.Conn, error)

	Denied       func(Denied)  // Is told what was denied, at most 10 a second after a burst of 50; must not block. Optional.
	HelloTimeout time.Duration // How long the hello may take. Optional: 10 seconds.
	DialTimeout  time.Duration // Optional: 30 seconds.
	Idle         time.Duration // A connection that moves nothing for so long is ended, within as long again. Optional: an hour.
	Connections  int           // How many there may be at a time. More are closed at once. Optional: 1024.

	turn time.Duration // How often it is looked at what has moved. Tests choose it.
}

const (
	deniedPerSecond = 10
	deniedBurst     = 50
	lastWords       = time.Second // what a denied client has to take its alert
	acceptPause     = 50 * time.Millisecond
)

func (o Options) withDefaults() Options {
	o.HelloTimeout, o.DialTimeout = cmp.Or(o.HelloTimeout, 10*time.Second), cmp.Or(o.DialTimeout, 30*time.Second)
	o.Idle, o.Connections = cmp.Or(o.Idle, time.Hour), cmp.Or(o.Connections, 1024)
	o.turn = cmp.Or(o.turn, max(1, o.Idle/turns))
	if o.Denied == nil {
		o.Denied = func(Denied) {}
	}
	return o
}

// Denied is a connection that was not let through.
type Denied struct {
	From, To netip.AddrPort // To is the zero value where it isn't known.
	Name     string         // What the client asked for, as it said it. Empty where it did not.
	Err      error          // Why: [ErrName], [ErrNoName], [ErrNotTLS], or what went wrong.
	Skipped  int            // How many the limit has swallowed since the last one.
}

// ErrName is why a client was denied that asked for a name that is not allowed there.
var ErrName = errors.New("the name is not allowed")

// Gate lets connections through by their names.
type Gate struct {
	options  Options
	listener net.Listener
	places   chan struct{} // one element for each connection
	reports  *quota.Bucket
	ctx      context.Context // ends with Close
	cancel   context.CancelFunc
	running  sync.WaitGroup
	closing  sync.Once
	err      error

	mu      sync.Mutex
	skipped int
}

// Serve judges what the listener accepts, until Close, which closes it.
func Serve(listener net.Listener, options Options) *Gate {
	options = options.withDefaults()
	ctx, cancel := context.WithCancel(context.Background())
	g := &Gate{options: options, listener: listener, ctx: ctx, cancel: cancel}
	g.places, g.reports = make(chan struct{}, options.Connections), quota.New(deniedPerSecond, deniedBurst)
	g.running.Go(g.serve)
	return g
}

// Close ends all connections, and waits for them. It may be called more than once.
func (g *Gate) Close() error {
	g.closing.Do(func() {
		g.cancel()
		g.err = g.listener.Close()
	})
	g.running.Wait()
	return g.err
}

func (g *Gate) serve() {
	for {
		conn, err := g.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // such as too many open files
			select {
			case <-g.ctx.Done():
			case <-time.After(acceptPause):
			}
			continue
		}
		select {
		case g.places <- struct{}{}:
		default:
			conn.Close()
			continue
		}
		g.running.Go(func() {
			defer func() { <-g.places }()
			defer conn.Close()
			stop := context.AfterFunc(g.ctx, func() { conn.Close() })
			defer stop()
			g.judge(conn)
		})
	}
}

// judge reads the hello, and lets the connection through or not.
func (g *Gate) judge(client net.Conn) {
	denied := Denied{From: addrPort(client.RemoteAddr())}
	var err error
	if denied.To, err = g.options.Original(client); err == nil && denied.To == addrPort(client.LocalAddr()) { // it would be dialled in a circle
		err = errors.New("the connection was made to the gate itself")
	}
	if err != nil {
		denied.Err = err
		g.deny(denied)
		return
	}
	client.SetDeadline(time.Now().Add(g.options.HelloTimeout))
	hello, err := ReadHello(client)
	client.SetDeadline(time.Time{})
	denied.Name = hello.Name
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = fmt.Errorf("%w: %d bytes came within %s", ErrNotTLS, len(hello.Raw), g.options.HelloTimeout)
	}
	if err == nil && !g.options.Allowed(hello.Name, denied.To) {
		err = ErrName
	}
	if err != nil {
		denied.Err = err
		g.deny(denied)
		if errors.Is(err, ErrName) || errors.Is(err, ErrNoName) {
			turnAway(client)
		}
		return
	}
	g.letThrough(client, hello, denied.To)
}

func (g *Gate) deny(denied Denied) {
	if g.ctx.Err() != nil {
		return
	}
	g.mu.Lock()
	if !g.reports.Take(time.Now()) {
		g.skipped++
		g.mu.Unlock()
		return
	}
	denied.Skipped, g.skipped = g.skipped, 0
	g.mu.Unlock()
	g.options.Denied(denied)
}

// turnAway tells the client why, by the alert unrecognized_name. What it still sends is read for a moment: closing with it unread would take the alert back.
func turnAway(client net.Conn) {
	client.SetDeadline(time.Now().Add(lastWords))
	if _, err := client.Write([]byte{21, 3, 3, 0, 2, 2, 112}); err != nil {
		return
	}
	closeWrite(client)
	io.CopyN(io.Discard, client, maxHello)
}

func (g *Gate) letThrough(client net.Conn, hello Hello, to netip.AddrPort) {
	ctx, cancel := context.WithTimeout(g.ctx, g.options.DialTimeout)
	server, err := g.options.Dial(ctx, to)
	cancel()
	if err != nil {
		abort(client)
		return
	}
	defer server.Close()
	stop := context.AfterFunc(g.ctx, func() { server.Close() })
	defer stop()
	server.SetWriteDeadline(time.Now().Add(g.options.HelloTimeout))
	if _, err := server.Write(hello.Raw); err != nil {
		abort(client)
		return
	}
	server.SetWriteDeadline(time.Time{})
	join(client, server, int(g.options.Idle/g.options.turn), g.options.turn)
}

func addrPort(addr net.Addr) netip.AddrPort {
	if tcp, ok := addr.(*net.TCPAddr); ok {
		addr := tcp.AddrPort()
		return netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
	}
	return netip.AddrPort{}
}
