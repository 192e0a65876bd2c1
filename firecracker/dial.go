//go:build linux

package firecracker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/state"
)

// maxGreeting bounds the VMM's answer to CONNECT: "OK 4294967295\n".
const maxGreeting = 32

// Dial connects to a port of the guest through the VMM's socket: "CONNECT PORT\n", "OK HOST_PORT\n" (Firecracker's docs/vsock.md).
func (d *driver) Dial(ctx context.Context, uid string, port uint32) (conn net.Conn, err error) {
	err = d.reading(ctx, func(ctx context.Context) error {
		record, err := d.running(uid, "dial")
		if err != nil {
			return err
		}
		conn, err = d.connect(ctx, record, port)
		return err
	})
	return conn, err
}

func (d *driver) connect(ctx context.Context, record *state.Record, port uint32) (net.Conn, error) {
	conn, err := d.place(record).dial(ctx, vsockPath)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil, fmt.Errorf("%w: its VMM does not answer: %w", microvm.ErrExited, err)
	}
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Now()) })
	err = greet(conn, port)
	if !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("port %d: %w", port, err), conn.Close())
	}
	return conn, nil
}

// greet asks for the port. The VMM closes the connection when nobody listens there.
func greet(conn net.Conn, port uint32) error {
	if _, err := io.WriteString(conn, "CONNECT "+strconv.FormatUint(uint64(port), 10)+"\n"); err != nil {
		return refused(err)
	}
	line := make([]byte, 0, maxGreeting)
	for one := make([]byte, 1); len(line) < maxGreeting; { // byte by byte: what follows the line is the guest's
		if _, err := io.ReadFull(conn, one); err != nil {
			return refused(err)
		}
		if one[0] == '\n' {
			break
		}
		line = append(line, one[0])
	}
	if !strings.HasPrefix(string(line), "OK ") {
		return fmt.Errorf("the VMM answered %q", line)
	}
	return nil
}

func refused(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
		return fmt.Errorf("nobody listens in the guest: %w", syscall.ECONNREFUSED)
	}
	return err
}

// Listen accepts the guest's connections to a port of the host: the VMM connects to a socket of the port's name.
func (d *driver) Listen(ctx context.Context, uid string, port uint32) (listener net.Listener, err error) {
	err = d.reading(ctx, func(context.Context) error {
		record, err := d.running(uid, "listen for")
		if err != nil {
			return err
		}
		listener, err = d.place(record).listen(fmt.Sprintf("%s_%d", vsockPath, port))
		if errors.Is(err, syscall.EADDRINUSE) {
			return fmt.Errorf("port %d: %w: somebody listened there already in this run", port, microvm.ErrExists)
		}
		return err
	})
	return listener, err
}
