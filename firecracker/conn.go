//go:build linux

package firecracker

import (
	"net"
	"strconv"
	"sync"
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

func (c *conn) LocalAddr() net.Addr  { return c.local }
func (c *conn) RemoteAddr() net.Addr { return c.remote }

// lines are the connections with guests that this process has. The zero value has none.
type lines struct {
	mu   sync.Mutex
	open map[string]map[*conn]bool // by the machine's uid
}

// add makes a connection one of a machine's.
func (l *lines) add(uid string, raw net.Conn, local, remote int, port uint32) net.Conn {
	c := &conn{Conn: raw, local: vsockAddr{local, port}, remote: vsockAddr{remote, port}}
	c.closed = func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if delete(l.open[uid], c); len(l.open[uid]) == 0 {
			delete(l.open, uid)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open == nil {
		l.open = map[string]map[*conn]bool{}
	}
	if l.open[uid] == nil {
		l.open[uid] = map[*conn]bool{}
	}
	l.open[uid][c] = true
	return c
}

// cut ends all of a machine's, as if its VMM had. Who has one reads its end.
func (l *lines) cut(uid string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.open[uid] {
		if raw, ok := c.Conn.(*net.UnixConn); ok {
			raw.CloseRead()
			raw.CloseWrite()
		}
	}
	delete(l.open, uid)
}

// forget is for a machine whose VMM has ended, and its connections with it.
func (l *lines) forget(uid string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.open, uid)
}

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
	lines *lines
	uid   string
	port  uint32
}

func (l guestListener) Accept() (net.Conn, error) {
	raw, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.lines.add(l.uid, raw, hostCID, guestCID, l.port), nil
}

func (l guestListener) Addr() net.Addr { return vsockAddr{hostCID, l.port} }
