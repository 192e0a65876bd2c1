//go:build linux

package pager

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/unix"
)

const (
	handshakePatience = 10 * time.Second
	maxHandshake      = 128 << 10 // bytes: of more regions than there may be
	maxMessages       = 64
	maxDescriptors    = 4 // more than one is refused; the kernel closes those that find no room
)

// receive reads what a VMM says of its memory, and the descriptor of its faults. With an error no descriptor is left open.
func receive(conn *net.UnixConn, patience time.Duration) (text []byte, uffd int, err error) {
	var got []int
	defer func() {
		if err != nil {
			for _, fd := range got {
				syscall.Close(fd)
			}
		}
	}()
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return nil, -1, err
	}
	buffer, control := make([]byte, maxHandshake+1), make([]byte, syscall.CmsgSpace(4*maxDescriptors))
	for range maxMessages {
		n, controlLength, flags, _, err := conn.ReadMsgUnix(buffer[len(text):cap(buffer)], control)
		ended := errors.Is(err, io.EOF) || err == nil && n == 0
		if err != nil && !ended {
			return nil, -1, fmt.Errorf("%w: %w", errHandshake, err)
		}
		fds, err := rights(control[:controlLength])
		got = append(got, fds...)
		text = buffer[:len(text)+n]
		switch {
		case err != nil:
			return nil, -1, fmt.Errorf("%w: %w", errHandshake, err)
		case len(got) > 1 || flags&syscall.MSG_CTRUNC != 0:
			return nil, -1, fmt.Errorf("%w: more than one descriptor", errHandshake)
		case len(text) > maxHandshake:
			return nil, -1, fmt.Errorf("%w: more than %d bytes", errHandshake, maxHandshake)
		case ended || json.Valid(text):
			return text, firstOf(got), checkUserfault(got)
		}
	}
	return nil, -1, fmt.Errorf("%w: not whole after %d messages", errHandshake, maxMessages)
}

// rights returns the descriptors that came with a message.
func rights(control []byte) (fds []int, err error) {
	messages, err := syscall.ParseSocketControlMessage(control)
	for _, message := range messages {
		if message.Header.Level != syscall.SOL_SOCKET || message.Header.Type != syscall.SCM_RIGHTS {
			continue // such as credentials
		}
		more, failed := syscall.ParseUnixRights(&message)
		fds, err = append(fds, more...), errors.Join(err, failed)
	}
	return fds, err
}

func firstOf(fds []int) int {
	if len(fds) == 0 {
		return -1
	}
	return fds[0]
}

// checkUserfault refuses what reading from could block, or mean something else.
func checkUserfault(fds []int) error {
	if len(fds) != 1 {
		return fmt.Errorf("%w: no descriptor", errHandshake)
	}
	link, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fds[0]))
	if err != nil {
		return err
	}
	if link != unix.UserfaultLink {
		return fmt.Errorf("%w: its descriptor is %.80q, and no userfaultfd", errHandshake, link)
	}
	return syscall.SetNonblock(fds[0], true)
}

// isVMM says whether the VMM has connected.
func (p *Pager) isVMM(conn *net.UnixConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	pid, uid, err := unix.PeerCredentials(raw)
	if err != nil {
		return err
	}
	if pid != p.config.VMM.PID || uid != p.config.UID {
		return fmt.Errorf("process %d of user %d has connected, and not process %d of user %d", pid, uid, p.config.VMM.PID, p.config.UID)
	}
	return nil
}

// handshake is what the VMM's first and only connection is for.
func (p *Pager) handshake(conn *net.UnixConn) error {
	text, uffd, err := receive(conn, handshakePatience)
	if err != nil {
		return err
	}
	t, err := parseTable(bytes.TrimSpace(text), p.source.Size())
	if err != nil {
		return errors.Join(err, syscall.Close(uffd))
	}
	return p.adopt(t, uffd)
}

// await waits for the VMM to connect.
func (p *Pager) await(listener net.Listener) error {
	for {
		conn, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("wait for the VMM: %w", err)
		}
		err = p.isVMM(conn.(*net.UnixConn))
		if err == nil {
			done := make(chan struct{})
			p.serving.Go(func() { // what waits for the VMM's words ends with the pager
				select {
				case <-p.halting:
					conn.SetReadDeadline(time.Unix(1, 0))
				case <-done:
				}
			})
			err = p.handshake(conn.(*net.UnixConn))
			close(done)
			return errors.Join(err, conn.Close())
		}
		p.log.Warn("a connection is refused", "error", err)
		conn.Close()
	}
}
