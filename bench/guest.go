//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/tangle-network/microvm-runtime/guest"
	"github.com/tangle-network/microvm-runtime/internal/agent"
	"github.com/tangle-network/microvm-runtime/internal/setup"
)

const (
	execs   = 200
	copies  = 10
	copyMiB = 64
)

// loopback is an agent within this process.
type loopback struct{ path string }

func (l loopback) Dial(ctx context.Context, _ uint32) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "unix", l.path)
}

// guestLoopback times an exec of true, against running it here, and cat of 64 MiB there and back, against the same through a socket and a cat here. The agent is
// in this process: what is measured is the protocol.
func guestLoopback(ctx context.Context, _ setup.Parts) (_ []figure, err error) {
	dir, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	l := loopback{filepath.Join(dir, "agent")}
	listener, err := net.Listen("unix", l.path)
	if err != nil {
		return nil, err
	}
	serving, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- agent.New(agent.Options{}).Serve(serving, listener) }()
	defer func() {
		stop()
		err = errors.Join(err, <-done)
	}()
	var execOurs, execTheirs, copyOurs, copyTheirs []time.Duration
	for range execs {
		ours, err := timed(func() error { return guest.Command(l, "true").Run(ctx) })
		if err != nil {
			return nil, err
		}
		theirs, err := timed(func() error { return plainExec(ctx) })
		if err != nil {
			return nil, err
		}
		execOurs, execTheirs = append(execOurs, ours), append(execTheirs, theirs)
	}
	data := make([]byte, copyMiB<<20)
	for range copies {
		ours, err := timed(func() error { return catThere(ctx, l, data) })
		if err != nil {
			return nil, err
		}
		theirs, err := timed(func() error { return plainCat(ctx, dir, data) })
		if err != nil {
			return nil, err
		}
		copyOurs, copyTheirs = append(copyOurs, ours), append(copyTheirs, theirs)
	}
	return []figure{
		newFigure("guest_exec", execOurs, "os/exec here", execTheirs),
		newFigure("guest_copy", copyOurs, "io.Copy through a socket and a cat here", copyTheirs),
	}, nil
}

func timed(f func() error) (time.Duration, error) {
	begin := time.Now()
	err := f()
	return time.Since(begin), err
}

func catThere(ctx context.Context, l loopback, data []byte) error {
	c := guest.Command(l, "cat")
	c.Stdin, c.Stdout = bytes.NewReader(data), io.Discard
	return c.Run(ctx)
}
