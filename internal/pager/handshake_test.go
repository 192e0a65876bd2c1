//go:build linux

package pager

import (
	"errors"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pair returns a connection, and the number of its other end.
func pair(t *testing.T) (*net.UnixConn, int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	f := os.NewFile(uintptr(fds[0]), "pair")
	defer f.Close()
	conn, err := net.FileConn(f)
	must(t, err)
	t.Cleanup(func() { conn.Close(); unix.Close(fds[1]) })
	return conn.(*net.UnixConn), fds[1]
}

func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(entries)
}

// uffd returns a descriptor of a userfaultfd, or skips: who may make one is the host's to say.
func uffd(t *testing.T) int {
	t.Helper()
	fd, _, errno := unix.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC|unix.O_NONBLOCK|1, 0, 0) // of user mode: anybody may
	if errno != 0 {
		t.Skip(errno)
	}
	t.Cleanup(func() { unix.Close(int(fd)) })
	return int(fd)
}

func TestReceive(t *testing.T) {
	const text = `[{"base_host_virt_addr":4096,"size":4096,"offset":0}]`
	fault := uffd(t)
	for name, send := range map[string]func(fd int) error{
		"at once": func(fd int) error { return unix.Sendmsg(fd, []byte(text), unix.UnixRights(fault), nil, 0) },
		"in pieces": func(fd int) error {
			return errors.Join(unix.Sendmsg(fd, []byte(text[:7]), unix.UnixRights(fault), nil, 0), unix.Sendmsg(fd, []byte(text[7:]), nil, nil, 0))
		},
	} {
		conn, other := pair(t)
		must(t, send(other))
		got, fd, err := receive(conn, patience)
		if err != nil || string(got) != text || fd < 0 {
			t.Errorf("%s: %q, %d, %v", name, got, fd, err)
			continue
		}
		must(t, syscall.Close(fd))
	}
}

func TestReceiveRefusesAndKeepsNothing(t *testing.T) {
	fault := uffd(t)
	long := []byte("[" + strings.Repeat(" ", maxHandshake+1000))
	for name, c := range map[string]struct {
		want     string
		patience time.Duration
		send     func(fd int)
	}{
		"nothing":       {"no descriptor", patience, func(fd int) { unix.Shutdown(fd, unix.SHUT_WR) }},
		"no descriptor": {"no descriptor", patience, func(fd int) { unix.Sendmsg(fd, []byte("[]"), nil, nil, 0) }},
		"another kind":  {"no userfaultfd", patience, func(fd int) { unix.Sendmsg(fd, []byte("[]"), unix.UnixRights(fd), nil, 0) }},
		"two":           {"more than one", patience, func(fd int) { unix.Sendmsg(fd, []byte("[]"), unix.UnixRights(fault, fault), nil, 0) }},
		"two, one by one": {"more than one", patience, func(fd int) {
			unix.Sendmsg(fd, []byte("["), unix.UnixRights(fault), nil, 0)
			unix.Sendmsg(fd, []byte("]"), unix.UnixRights(fault), nil, 0)
		}},
		"as many as fit": {"more than one", patience, func(fd int) {
			unix.Sendmsg(fd, []byte("["), unix.UnixRights(make([]int, 253)...), nil, 0)
		}},
		"too long": {"more than", patience, func(fd int) {
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 4*maxHandshake)
			unix.Sendmsg(fd, long[:maxHandshake/2], unix.UnixRights(fault), nil, 0)
			unix.Sendmsg(fd, long[maxHandshake/2:], nil, nil, unix.MSG_DONTWAIT)
		}},
		"without an end": {"timeout", 20 * time.Millisecond, func(fd int) { unix.Sendmsg(fd, []byte("["), unix.UnixRights(fault), nil, 0) }},
	} {
		conn, other := pair(t)
		before := descriptors(t)
		c.send(other)
		if _, fd, err := receive(conn, c.patience); !errors.Is(err, errHandshake) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: descriptor %d, %v, want %q", name, fd, err, c.want)
		}
		conn.Close()
		if after := descriptors(t); after != before-1 {
			t.Errorf("%s: %d descriptors, before it were %d with the connection", name, after, before)
		}
	}
}

func TestReceiveOfManyMessages(t *testing.T) {
	conn, other := pair(t)
	sent := make(chan int, 1)
	go func() {
		n := 0
		for ; n < 10*maxMessages && unix.Sendmsg(other, []byte("["), nil, nil, unix.MSG_NOSIGNAL) == nil; n++ {
			for { // until it was read: the next one would be joined to it
				if waiting, err := unix.IoctlGetInt(other, unix.SIOCOUTQ); err != nil || waiting == 0 {
					break
				}
			}
		}
		sent <- n
	}()
	_, _, err := receive(conn, patience)
	if !errors.Is(err, errHandshake) || !strings.Contains(err.Error(), "not whole") {
		t.Error(err)
	}
	conn.Close()
	if n := <-sent; n < maxMessages {
		t.Errorf("%d messages were enough", n)
	}
}
