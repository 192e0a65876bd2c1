package guest

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"sync"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/tunnel"
	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// Listen listens at an address of the guest, HOST:PORT or an absolute path, through the agent. It ends when it is closed, or when ctx ends. The connections that Accept
// returns are those of [DialTCP].
//
// The agent holds 128 connections until they are accepted; more wait in the guest's kernel. When the connection to the agent breaks, as at a snapshot, those are refused,
// and it listens again.
//
// An error matches microvm.ErrExists when the address is in use, ErrNotFound when the guest has no such address, microvm.ErrBusy when 64 listen, and microvm.ErrUnsupported
// when the agent is too old.
func Listen(ctx context.Context, d Dialer, address string) (net.Listener, error) {
	if err := checkTarget("address", address); err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	life, cancel := context.WithCancelCause(ctx)
	l := &guestListener{dialer: d, address: address, ctx: life, cancel: cancel, incoming: make(chan incoming, wire.MaxIncoming)}
	p, err := l.open()
	if err != nil {
		cancel(nil)
		return nil, fmt.Errorf("listen at %s in the guest: %w", address, explain(ctx, d, err, wire.FeatureListen))
	}
	l.serving.Go(func() { l.serve(p) })
	return l, nil
}

// guestListener is a net.Listener in the guest.
type guestListener struct {
	dialer   Dialer
	address  string
	ctx      context.Context // its life
	cancel   context.CancelCauseFunc
	incoming chan incoming
	serving  sync.WaitGroup
}

// incoming is a connection that waits at the agent.
type incoming wire.Accept

// post is one connection over which the agent tells what comes.
type post struct {
	id   string
	conn net.Conn
	in   *bufio.Reader
}

// open asks the agent to listen, under a new name: what came to an older one is gone.
func (l *guestListener) open() (post, error) {
	id := rand.Text()
	conn, in, err := upgrade(l.ctx, l.dialer, wire.PathListen, wire.Listen{ID: id, Address: l.address})
	return post{id, conn, in}, err
}

// serve takes what comes, over any number of connections to the agent.
func (l *guestListener) serve(p post) {
	for {
		err := l.hear(p)
		if errors.Is(err, errBroken) && pause(l.ctx) == nil {
			p, err = persist(l.ctx, reconnectPatience, l.again)
		}
		if err != nil {
			l.cancel(err) // to no effect when it was closed
			return
		}
	}
}

// again is open where the agent may not have noticed yet that its former connection is no more.
func (l *guestListener) again() (post, error) {
	p, err := l.open()
	if errors.Is(err, microvm.ErrExists) {
		err = fmt.Errorf("%w: %w", errBroken, err)
	}
	return p, err
}

// hear reads what comes over one connection until it ends.
func (l *guestListener) hear(p post) error {
	defer p.conn.Close()
	stop := context.AfterFunc(l.ctx, func() { p.conn.Close() })
	defer stop()
	frames := wire.NewReader(p.in)
	for {
		f, err := frames.Read()
		if errors.Is(err, wire.ErrFrame) {
			return fmt.Errorf("%w: %w", ErrAgent, err)
		}
		if err != nil {
			return fmt.Errorf("%w: %w", errBroken, err)
		}
		number, err := f.Number()
		if err != nil || f.Kind != wire.Incoming {
			return fmt.Errorf("%w: kind %d from a listener", ErrAgent, f.Kind)
		}
		select {
		case l.incoming <- incoming{p.id, number}:
		case <-l.ctx.Done():
			return context.Cause(l.ctx)
		}
	}
}

// Accept returns the next connection. After the end it returns net.ErrClosed, with the reason.
func (l *guestListener) Accept() (net.Conn, error) {
	for {
		select {
		case <-l.ctx.Done():
			return nil, fmt.Errorf("%w: %w", net.ErrClosed, context.Cause(l.ctx))
		case next := <-l.incoming:
			conn, err := l.take(next)
			if err == nil || l.ctx.Err() == nil && final(err) {
				return conn, err
			}
		}
	}
}

// take fetches a connection that waits. While the agent has no room, or can't be reached, it waits still.
func (l *guestListener) take(next incoming) (net.Conn, error) {
	for {
		conn, in, err := upgrade(l.ctx, l.dialer, wire.PathAccept, wire.Accept(next))
		switch {
		case err == nil:
			return tunnel.New(conn, in, place("of "+l.address)), nil
		case !errors.Is(err, errBroken) && !errors.Is(err, microvm.ErrBusy) || pause(l.ctx) != nil:
			return nil, err
		}
	}
}

// Close ends the listener, and refuses who waits. What was accepted lives on.
func (l *guestListener) Close() error {
	l.cancel(net.ErrClosed)
	l.serving.Wait()
	return nil
}

// Addr returns the address in the guest.
func (l *guestListener) Addr() net.Addr { return place(l.address) }
