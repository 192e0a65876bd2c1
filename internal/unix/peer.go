//go:build linux

package unix

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// PeerCredentials says who connected a UNIX socket, in this process's PID namespace (SO_PEERCRED, unix(7)). PID is 0 for a process of another one.
func PeerCredentials(conn syscall.RawConn) (pid, uid int, err error) {
	var peer *unix.Ucred
	var failed error
	err = conn.Control(func(fd uintptr) { peer, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err == nil {
		err = failed
	}
	if err != nil {
		return 0, 0, err
	}
	return int(peer.Pid), int(peer.Uid), nil
}
