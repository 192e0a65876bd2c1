//go:build linux

package unix

import (
	"encoding/binary"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// OriginalDestination returns where a TCP connection over IPv4 went before netfilter sent it to this socket. One that was not sent is told the socket's own address; where nothing tracks
// connections the error is ENOENT or ENOPROTOOPT.
func OriginalDestination(conn syscall.RawConn) (to netip.AddrPort, err error) {
	const soOriginalDst = 80 // linux/netfilter_ipv4.h
	failed := conn.Control(func(fd uintptr) {
		var answer *unix.IPv6Mreq // has room for a sockaddr_in: family, port, address
		if answer, err = unix.GetsockoptIPv6Mreq(int(fd), unix.SOL_IP, soOriginalDst); err == nil {
			b := answer.Multiaddr
			to = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), binary.BigEndian.Uint16(b[2:4]))
		}
	})
	if failed != nil {
		err = failed
	}
	return to, err
}
