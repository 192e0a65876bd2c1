//go:build linux

package firecracker

import (
	"net"
	"strconv"
)

// hostCID is the host's address on vsock (vsock(7), VMADDR_CID_HOST).
const hostCID = 2

// conn is a connection with a guest. It hides the socket that the VMM has at the other end, and with it CloseWrite: the VMM would end both directions.
type conn struct {
	net.Conn
	local, remote net.Addr
	closed        func()
}

func (c *conn) Close() error {
	c.closed()
	return c.Conn.Close()
}

// end ends both directions, and leaves it to its user to close it.
func (c *conn) end() {
	if raw, ok := c.Conn.(*net.UnixConn); ok {
		raw.CloseRead()
		raw.CloseWrite()
	}
}

func (c *conn) LocalAddr() net.Addr  { return c.local }
func (c *conn) RemoteAddr() net.Addr { return c.remote }

// vsockAddr is "CID:PORT".
type vsockAddr struct {
	cid  int
	port uint32
}

func (a vsockAddr) Network() string { return "vsock" }
func (a vsockAddr) String() string {
	return strconv.Itoa(a.cid) + ":" + strconv.FormatUint(uint64(a.port), 10)
}

// guestListener accepts a guest's connections.
type guestListener struct {
	net.Listener
	driver *driver
	uid    string
	port   uint32
}

func (l guestListener) Accept() (net.Conn, error) {
	raw, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	line, since := l.driver.useLine(l.uid)
	return l.driver.lines.add(line, since, &conn{Conn: raw, local: vsockAddr{hostCID, l.port}, remote: vsockAddr{guestCID, l.port}}), nil
}

func (l guestListener) Addr() net.Addr { return vsockAddr{hostCID, l.port} }
