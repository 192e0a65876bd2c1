package sni_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/sni"
	"github.com/tangle-network/microvm-runtime/internal/unix"
)

// TestHostRedirected has netfilter send connections to a gate, in a network namespace of its own: the test executes itself there.
func TestHostRedirected(t *testing.T) {
	const inside = "MICROVM_TEST_REDIRECTED"
	if os.Getenv(inside) == "" {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestHostRedirected$", "-test.v")
		cmd.Env = append(os.Environ(), inside+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "--- PASS: TestHostRedirected") {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	for _, args := range []string{"ip link set lo up", "ip addr add 192.0.2.1/32 dev lo"} {
		run(t, strings.Fields(args)...)
	}
	listener, err := net.Listen("tcp4", "192.0.2.1:443")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	t.Cleanup(func() {
		listener.Close()
		<-served
		collectPipes()
	})
	go func() {
		defer close(served)
		for conn, err := listener.Accept(); err == nil; conn, err = listener.Accept() {
			io.Copy(conn, conn)
			conn.Close()
		}
	}()
	const mark = 7
	w := startGate(t, netip.AddrPort{}, func(o *sni.Options) {
		o.Original = func(conn net.Conn) (netip.AddrPort, error) {
			raw, err := conn.(*net.TCPConn).SyscallConn()
			if err != nil {
				return netip.AddrPort{}, err
			}
			return unix.OriginalDestination(raw)
		}
		o.Allowed = func(name string, to netip.AddrPort) bool {
			return name == "good.example" && to.String() == "192.0.2.1:443"
		}
		o.Dial = func(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
			dialer := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error {
				return raw.Control(func(fd uintptr) { syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_MARK, mark) })
			}}
			return dialer.DialContext(ctx, "tcp4", to.String())
		}
	})
	_, port, _ := net.SplitHostPort(w.address)
	run(t, "nft", fmt.Sprintf("add table ip t; add chain ip t out { type nat hook output priority -100; }; add rule ip t out meta mark != %d tcp dport 443 redirect to :%s", mark, port))
	for name, want := range map[string]bool{"good.example": true, "evil.example": false} {
		conn, err := net.DialTimeout("tcp4", "192.0.2.1:443", patience)
		if err != nil {
			t.Fatal(err)
		}
		conn.SetDeadline(time.Now().Add(patience))
		hello := build(0, names(0, name))
		conn.Write(hello)
		if _, err := io.ReadFull(conn, make([]byte, len(hello))); (err == nil) != want {
			t.Errorf("%s: %v", name, err)
		}
		conn.Close()
	}
	// Who connects to the gate itself is not sent in a circle.
	conn := w.dial(t)
	conn.Write(build(0, names(0, "good.example")))
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("a connection to the gate itself is served")
	}
	for range 2 {
		denied := <-w.denied
		if circle := denied.To.String() == w.address; !circle && denied.To.String() != "192.0.2.1:443" {
			t.Errorf("reported %+v", denied)
		}
	}
}

func run(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", args, err, out)
	}
}
