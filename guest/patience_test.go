//go:build linux

package guest

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/tangle-network/microvm-runtime/guest/guesttest"
)

// refusing refuses so many connections, and passes later ones on.
type refusing struct {
	Dialer
	left atomic.Int64
}

func (r *refusing) Dial(ctx context.Context, port uint32) (net.Conn, error) {
	if r.left.Add(-1) >= 0 {
		return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	}
	return r.Dialer.Dial(ctx, port)
}

func TestStartAsksAgainButNotForEver(t *testing.T) {
	d := &refusing{Dialer: guesttest.New(t)}
	d.left.Store(3)
	if err := Command(d, "true").Run(t.Context()); err != nil {
		t.Errorf("an agent that is a little late: %v", err)
	}
	d.left.Store(1 << 40)
	c := Command(d, "true")
	c.patience = 100 * time.Millisecond
	started := make(chan error, 1)
	go func() { started <- c.Start(t.Context()) }()
	select {
	case err := <-started:
		if !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("error %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("it asks for ever")
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	d.left.Store(1 << 40)
	go func() {
		for d.left.Load() == 1<<40 { // it has not been refused yet
			time.Sleep(time.Millisecond)
		}
		cancel()
	}()
	if err := Command(d, "true").Start(ctx); !errors.Is(err, context.Canceled) || !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a context that ends first: %v, want both reasons", err)
	}
	over, end := context.WithCancel(t.Context())
	if err := Command(ending{end}, "true").Start(over); !errors.Is(err, context.Canceled) || !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a context that ends while it is dialled: %v, want both reasons", err)
	}
}

// ending is a Dialer during whose call the context ends.
type ending struct{ end func() }

func (e ending) Dial(context.Context, uint32) (net.Conn, error) {
	e.end()
	return nil, syscall.ECONNREFUSED
}

func TestABrokenStreamIsGivenUpWithItsLastError(t *testing.T) {
	a := guesttest.New(t)
	d := &refusing{Dialer: a}
	c := Command(d, "sleep", "1000")
	c.patience = 100 * time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if err := c.Start(ctx); err != nil {
		t.Fatal(err)
	}
	d.left.Store(1 << 40)
	a.Cut()
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	select {
	case err := <-ended:
		if !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("error %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("it asks for ever")
	}
}
