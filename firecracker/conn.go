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
}

func newConn(raw net.Conn, local, remote int, port uint32) net.Conn {
	return &conn{Conn: raw, local: vsockAddr{local, port}, remote: vsockAddr{remote, port}}
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
	port uint32
}

func (l guestListener) Accept() (net.Conn, error) {
	raw, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return newConn(raw, hostCID, guestCID, l.port), nil
}

func (l guestListener) Addr() net.Addr { return vsockAddr{hostCID, l.port} }
