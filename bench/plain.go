//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

// socketPair returns two connected Unix sockets.
func socketPair() (a, b *net.UnixConn, err error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	conns := [2]*net.UnixConn{}
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "socket")
		conn, err := net.FileConn(f)
		if err := errors.Join(err, f.Close()); err != nil {
			return nil, nil, err
		}
		conns[i] = conn.(*net.UnixConn)
	}
	return conns[0], conns[1], nil
}

// rawExec is what executes without a protocol: a line with a program comes, and its status goes back, behind its output.
type rawExec struct {
	conn   *net.UnixConn
	in     *bufio.Reader
	served chan error
}

func newRawExec(ctx context.Context) (*rawExec, error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	r := &rawExec{conn: ours, in: bufio.NewReader(ours), served: make(chan error, 1)}
	go func() { r.served <- serveExec(ctx, theirs) }()
	return r, nil
}

func serveExec(ctx context.Context, conn net.Conn) error {
	defer conn.Close()
	lines := bufio.NewScanner(conn)
	for lines.Scan() {
		var out, errs bytes.Buffer
		cmd := exec.CommandContext(ctx, lines.Text())
		cmd.Stdout, cmd.Stderr = &out, &errs
		if err := cmd.Run(); cmd.ProcessState == nil {
			return err
		}
		if _, err := fmt.Fprintf(conn, "%s%s%d\n", &out, &errs, cmd.ProcessState.ExitCode()); err != nil {
			return err
		}
	}
	return lines.Err()
}

func (r *rawExec) run(program string) error {
	if _, err := fmt.Fprintln(r.conn, program); err != nil {
		return err
	}
	status, err := r.in.ReadString('\n')
	if err == nil && strings.TrimSpace(status) != "0" {
		err = fmt.Errorf("%s says %q", program, status)
	}
	return err
}

func (r *rawExec) Close() error { return errors.Join(r.conn.Close(), <-r.served) }

// rawCat is a cat between two pumps of a socket.
type rawCat struct {
	*net.UnixConn
	served chan error
}

func newRawCat(ctx context.Context) (*rawCat, error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	r := &rawCat{ours, make(chan error, 1)}
	go func() { r.served <- serveCat(ctx, theirs) }()
	return r, nil
}

func (r *rawCat) Close() error { return errors.Join(r.UnixConn.Close(), <-r.served) }

func serveCat(ctx context.Context, conn net.Conn) error {
	defer conn.Close()
	cat := exec.CommandContext(ctx, "cat")
	cat.Stdin, cat.Stdout = struct{ io.Reader }{conn}, struct{ io.Writer }{conn}
	return cat.Run()
}

// plainCat sends data through a socket into a cat and back through the socket, without any protocol.
func plainCat(ctx context.Context, data []byte) error {
	conn, err := newRawCat(ctx)
	if err != nil {
		return err
	}
	sent := make(chan error, 1)
	go func() {
		_, err := io.Copy(conn.UnixConn, bytes.NewReader(data))
		sent <- errors.Join(err, conn.CloseWrite())
	}()
	n, err := io.Copy(io.Discard, conn.UnixConn)
	if n != int64(len(data)) && err == nil {
		err = io.ErrUnexpectedEOF
	}
	return errors.Join(err, <-sent, conn.Close())
}

// plainCopy copies a file through a socket with io.Copy at both ends, which uses what the system has for it: sendfile(2), splice(2).
func plainCopy(from, to string) error {
	ours, theirs, err := socketPair()
	if err != nil {
		return err
	}
	sent := make(chan error, 1)
	go func() { sent <- sendFile(ours, from) }()
	f, err := os.Create(to)
	if err != nil {
		return errors.Join(err, theirs.Close(), <-sent)
	}
	_, err = io.Copy(f, theirs)
	return errors.Join(err, f.Close(), theirs.Close(), <-sent)
}

func sendFile(conn *net.UnixConn, from string) error {
	f, err := os.Open(from)
	if err != nil {
		return errors.Join(err, conn.Close())
	}
	_, err = io.Copy(conn, f)
	return errors.Join(err, f.Close(), conn.Close())
}
