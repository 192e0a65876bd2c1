//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
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
	execs      = 200
	echoes     = 2000
	streams    = 10
	streamMiB  = 64
	copies     = 50
	copyMiB    = 256
	mostExec   = 1.5 // times the raw one's time
	leastCopy  = 0.7 // times the plain one's throughput
	inMemory   = "/dev/shm"
	execTarget = "true"
)

// loopback is an agent within this process.
type loopback struct{ path string }

func (l loopback) Dial(ctx context.Context, _ uint32) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "unix", l.path)
}

// guestLoopback measures what the agent's protocol costs: the agent is in this process, behind a Unix socket, and what it is held against is in this process behind another, interleaved.
//
//   - guest_exec: one command from its start to its status, which is mostly the fork. Against a server that reads a program's name from a socket, executes it with pipes, and
//     answers with output and status, on a connection that stays.
//   - guest_echo: a byte to the standard input of a command that runs, and back from its standard output. Against a cat between two pumps of a socket.
//   - guest_stream: 64 MiB through a cat and back. Against the same cat.
//   - guest_copy, guest_copy_from: one file of 256 MiB between two directories in memory. Against io.Copy from the file to a socket, and from the socket to another file.
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
	var figures []figure
	for _, measure := range []func(context.Context, loopback) ([]figure, error){guestExec, guestEcho, guestStream, guestCopy} {
		measured, err := measure(ctx, l)
		if err != nil {
			return nil, err
		}
		figures = append(figures, measured...)
	}
	return figures, nil
}

func timed(f func() error) (time.Duration, error) {
	begin := time.Now()
	err := f()
	return time.Since(begin), err
}

// interleaved times two ways of doing the same in turn, so that what disturbs the one disturbs the other.
func interleaved(n int, ours, theirs func() error) (of, against []time.Duration, err error) {
	for range n {
		for _, one := range []struct {
			do      func() error
			samples *[]time.Duration
		}{{ours, &of}, {theirs, &against}} {
			took, err := timed(one.do)
			if err != nil {
				return nil, nil, err
			}
			*one.samples = append(*one.samples, took)
		}
	}
	return of, against, nil
}

func guestExec(ctx context.Context, l loopback) ([]figure, error) {
	raw, err := newRawExec(ctx)
	if err != nil {
		return nil, err
	}
	defer raw.Close()
	ours, theirs, err := interleaved(execs, func() error { return guest.Command(l, execTarget).Run(ctx) }, func() error { return raw.run(execTarget) })
	if err != nil {
		return nil, err
	}
	return []figure{newFigure("guest_exec", ours, "a raw echo that executes", theirs).atMost(mostExec)}, nil
}

func guestEcho(ctx context.Context, l loopback) ([]figure, error) {
	raw, err := newRawCat(ctx)
	if err != nil {
		return nil, err
	}
	defer raw.Close()
	cat := guest.Command(l, "cat")
	in, err := cat.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cat.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cat.Start(ctx); err != nil {
		return nil, err
	}
	ours, theirs, err := interleaved(echoes, func() error { return echo(in, out) }, func() error { return echo(raw, raw) })
	if err := errors.Join(err, in.Close(), cat.Wait()); err != nil {
		return nil, err
	}
	return []figure{newFigure("guest_echo", ours, "a byte through a socket and a cat", theirs).atMost(mostExec)}, nil
}

// echo sends a byte and waits for it.
func echo(w io.Writer, r io.Reader) error {
	if _, err := w.Write([]byte{'x'}); err != nil {
		return err
	}
	back := make([]byte, 1)
	_, err := io.ReadFull(r, back)
	if err == nil && back[0] != 'x' {
		err = fmt.Errorf("%q came back", back)
	}
	return err
}

func guestStream(ctx context.Context, l loopback) ([]figure, error) {
	data := make([]byte, streamMiB<<20)
	ours, theirs, err := interleaved(streams, func() error { return catThere(ctx, l, data) }, func() error { return plainCat(ctx, data) })
	if err != nil {
		return nil, err
	}
	return []figure{newFigure("guest_stream", ours, "io.Copy through a socket and a cat", theirs)}, nil
}

func catThere(ctx context.Context, l loopback, data []byte) error {
	c := guest.Command(l, "cat")
	c.Stdin, c.Stdout = bytes.NewReader(data), io.Discard
	return c.Run(ctx)
}

// guestCopy copies in memory, so that no disk is measured.
func guestCopy(ctx context.Context, l loopback) (_ []figure, err error) {
	dir, err := os.MkdirTemp(inMemory, "bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	if err := os.WriteFile(from, bytes.Repeat([]byte("some content. \n\n"), copyMiB<<20/16), 0o644); err != nil {
		return nil, err
	}
	// fresh has each way make a new file; its removal is not measured.
	fresh := func(do func() error, took *time.Duration) error {
		d, err := timed(do)
		*took = d
		return errors.Join(err, checkSize(to, copyMiB<<20), os.Remove(to))
	}
	figures := make([]figure, 0, 2)
	for _, way := range []struct {
		name string
		do   func() error
	}{
		{"guest_copy", func() error { return guest.CopyTo(ctx, l, from, to, nil) }},
		{"guest_copy_from", func() error { return guest.CopyFrom(ctx, l, from, to, nil) }},
	} {
		var ours, theirs []time.Duration
		for range copies {
			var our, their time.Duration
			if err := errors.Join(fresh(way.do, &our), fresh(func() error { return plainCopy(from, to) }, &their)); err != nil {
				return nil, err
			}
			ours, theirs = append(ours, our), append(theirs, their)
		}
		figures = append(figures, newThroughput(way.name, copyMiB, ours, "io.Copy through a socket", theirs).atLeast(leastCopy))
	}
	return figures, nil
}

func checkSize(path string, want int64) error {
	info, err := os.Stat(path)
	if err == nil && info.Size() != want {
		err = fmt.Errorf("%s has %d bytes, not %d", path, info.Size(), want)
	}
	return err
}
