package guest

import (
	"context"
	"fmt"
	"net"
	"sync"

	"github.com/tangle-network/microvm-runtime/internal/tunnel"
	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// Forward connects whoever connects to the host's listener with the target in the guest, which is that of [DialTCP], until ctx ends, whose cause it returns. It closes the
// listener, and what it has connected, before it returns.
//
// A target that refuses, or a guest that does not answer for now, refuses the one who connects and no other. When the machine is gone, or its agent too old, Forward returns
// the reason. At most 1,024 are connected at once; more wait to be accepted.
func Forward(ctx context.Context, d Dialer, listener net.Listener, target string) error {
	defer listener.Close()
	if err := checkTarget("target", target); err != nil {
		return fmt.Errorf("forward: %w", err)
	}
	if err := require(ctx, d, wire.FeatureDial); err != nil {
		return fmt.Errorf("forward: %w", err)
	}
	return forwarding(ctx, listener, func(ctx context.Context) (net.Conn, error) { return dialTunnel(ctx, d, target) })
}

// ForwardBack listens at an address of the guest, HOST:PORT or an absolute path, and connects whoever connects there with what dial returns, until ctx ends, whose cause it
// returns. A dial that fails refuses the one who connects and no other. See [Listen], which it is made of.
func ForwardBack(ctx context.Context, d Dialer, address string, dial func(ctx context.Context) (net.Conn, error)) error {
	listener, err := Listen(ctx, d, address)
	if err != nil {
		return fmt.Errorf("forward back: %w", err)
	}
	defer listener.Close()
	return forwarding(ctx, listener, dial)
}

// forwarding joins what a listener accepts with what dial returns. It ends with ctx, the listener, or an error of dial's that makes another attempt useless.
func forwarding(ctx context.Context, listener net.Listener, dial func(ctx context.Context) (net.Conn, error)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(ctx, func() { listener.Close() })
	defer stop()
	var joined sync.WaitGroup
	defer joined.Wait()
	defer cancel(nil) // before that wait
	room := make(chan struct{}, wire.MaxTunnels)
	for {
		conn, err := listener.Accept()
		if cause := context.Cause(ctx); cause != nil {
			if err == nil {
				conn.Close()
			}
			return fmt.Errorf("forward: %w", cause)
		}
		if err != nil {
			return fmt.Errorf("forward: %w", err)
		}
		room <- struct{}{}
		joined.Go(func() {
			defer func() { <-room }()
			to, err := dial(ctx)
			if err != nil {
				tunnel.Cut(conn)
				if final(err) {
					cancel(err)
				}
				return
			}
			tunnel.Join(ctx, conn, to)
		})
	}
}
