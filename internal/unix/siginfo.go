//go:build linux

package unix

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Codes of a SIGCHLD (sigaction(2), bits/siginfo-consts.h).
const (
	cldExited = 1
	cldKilled = 2
	cldDumped = 3
)

// childInfo is the part of siginfo_t that waitid(2) fills, on 64-bit kernels.
type childInfo struct {
	signo, errno, code int32
	_                  int32
	pid                int32
	uid                uint32
	status             int32
}

// childStatus reads what waitid said. Exited is false when no child has ended.
func childStatus(info *unix.Siginfo) (exited bool, code, signal int, err error) {
	child := (*childInfo)(unsafe.Pointer(info))
	switch child.code {
	case cldExited:
		return true, int(child.status), 0, nil
	case cldKilled, cldDumped:
		return true, 0, int(child.status), nil
	}
	return false, 0, 0, nil
}
