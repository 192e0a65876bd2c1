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

// connect does it. The connection ends when a snapshot is taken, by whatever process.
func (d *driver) connect(ctx context.Context, record *state.Record, port uint32) (net.Conn, error) {
	line, since := d.useLine(record.UID) // before the guest has it: none that it loses goes unseen
	raw, err := d.connectRaw(ctx, record, port)
	if err != nil {
		d.lines.leave(line)
		return nil, err
	}
	return d.lines.add(line, since, &conn{Conn: raw, local: vsockAddr{hostCID, port}, remote: vsockAddr{guestCID, port}}), nil
}

// connectRaw connects to a port, and tells three failures apart: no VMM, nobody who listens, no answer. A VMM that is just ending looks as if nobody listened.
func (d *driver) connectRaw(ctx context.Context, record *state.Record, port uint32) (net.Conn, error) {
	raw, err := d.place(record).dial(ctx, vsockPath)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil, fmt.Errorf("%w: its VMM does not listen", microvm.ErrExited)
	}
	if err != nil {
		return nil, err
	}
	raw.SetDeadline(time.Now().Add(greetPatience))
	stop := context.AfterFunc(ctx, func() { raw.SetDeadline(time.Now()) })
	err = greet(raw, port)
	if !stop() {
		err = context.Cause(ctx)
		if errors.Is(err, context.DeadlineExceeded) {
			err = fmt.Errorf("%w: %w", microvm.ErrNoAnswer, err)
		}
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = microvm.ErrNoAnswer
	}
	if err == nil {
		err = raw.SetDeadline(time.Time{})
	}
	if err == nil {
		return raw, nil
	}
	return nil, errors.Join(fmt.Errorf("port %d: %w", port, err), raw.Close())
}

// greetPatience is how long an answer may take. The VMM gives up earlier, unless it waits for the guest to have a driver.
const greetPatience = 5 * time.Second

// refusalPatience is what tells a guest's refusal, which comes at once, from a VMM that gives up on a guest that says nothing: it does so after two seconds
// (CONN_REQUEST_TIMEOUT_MS in src/vmm/src/devices/virtio/vsock/csm/mod.rs@v1.12.1).
const refusalPatience = 1500 * time.Millisecond

// greet asks for the port. The VMM closes the connection when nobody listens there, or nobody answers.
func greet(conn net.Conn, port uint32) error {
	begin := time.Now()
	if _, err := io.WriteString(conn, "CONNECT "+strconv.FormatUint(uint64(port), 10)+"\n"); err != nil {
		return refused(err, begin)
	}
	line := make([]byte, 0, maxGreeting)
	for one := make([]byte, 1); len(line) < maxGreeting; { // byte by byte: what follows the line is the guest's
		if _, err := io.ReadFull(conn, one); err != nil {
			return refused(err, begin)
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

func refused(err error, begin time.Time) error {
	closed := errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
	switch {
	case closed && time.Since(begin) > refusalPatience:
		return microvm.ErrNoAnswer
	case closed:
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
		made, err := d.place(record).listen(fmt.Sprintf("%s_%d", vsockPath, port))
		if errors.Is(err, syscall.EADDRINUSE) {
			return fmt.Errorf("port %d: %w: somebody listened there already in this run", port, microvm.ErrExists)
		}
		if err == nil {
			listener = guestListener{Listener: made, driver: d, uid: uid, port: port}
		}
		return err
	})
	return listener, err
}
