//go:build linux

package agent

import (
	"net"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// scarce is a listener whose connections live on when the kernel has no memory for a packet: the first of them has it for so many bytes only.
type scarce struct {
	net.Listener
	room atomic.Int64
}

func (l *scarce) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return scarceConn{c, l}, err
}

type scarceConn struct {
	net.Conn
	l *scarce
}

func (c scarceConn) Write(p []byte) (int, error) {
	left := c.l.room.Add(-int64(len(p)))
	if left >= 0 {
		return c.Conn.Write(p)
	}
	c.l.room.Store(1 << 62)
	n, _ := c.Conn.Write(p[:max(0, len(p)+int(left))])
	return n, &net.OpError{Op: "write", Net: "vsock", Err: syscall.ENOMEM}
}

// The host would wait for the rest of the frame for as long as the connection lives.
func TestAFrameThatCanNotBeSentEndsTheConnection(t *testing.T) {
	const room, size = 100_000, 200_000
	listener, err := net.Listen("unix", filepath.Join(t.TempDir(), "agent"))
	if err != nil {
		t.Fatal(err)
	}
	scarce := &scarce{Listener: listener}
	scarce.room.Store(room)
	h := newHostOn(t, Options{}, scarce)
	s := h.exec(wire.Exec{ID: "a", Argv: []string{"head", "-c", strconv.Itoa(size), "/dev/zero"}})
	got := s.untilCut()
	if got == 0 || got >= room {
		t.Errorf("%d bytes came, of %d for which there was room", got, room)
	}
	again := h.exec(wire.Exec{ID: "a", Attach: true, Stdout: uint64(got)})
	again.output(size - got)
	again.exit()
	again.sendFrame(wire.Done, "")
}
