//go:build linux

package firecracker

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/nettest"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/state"
	"github.com/tangle-network/microvm-runtime/internal/testing/fakevmm"
	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
	"github.com/tangle-network/microvm-runtime/internal/testing/tinyguest"
)

// vmmSocket is where a VMM would listen for the host's connections to a guest.
func vmmSocket(t *testing.T, d *driver) (*state.Record, net.Listener) {
	t.Helper()
	record := &state.Record{UID: state.NewUID()}
	dir := d.state.Sockets(record.UID)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("unix", filepath.Join(dir, vsockPath))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		listener.Close()
		os.RemoveAll(dir)
	})
	return record, listener
}

// TestConnIsANetConn: what Dial returns does all that net.Conn promises.
func TestConnIsANetConn(t *testing.T) {
	o := fakeOptions(t, fakevmm.Faults{})
	d, err := open(o)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	record, listener := vmmSocket(t, d)
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		accepted := make(chan net.Conn, 1)
		go func() {
			conn, err := listener.Accept()
			if err != nil {
				t.Error(err)
				return
			}
			if line, err := bufio.NewReaderSize(conn, 16).ReadString('\n'); err != nil || line != "CONNECT 4242\n" {
				t.Errorf("%q, %v", line, err)
			}
			fmt.Fprintln(conn, "OK 1073741824")
			accepted <- conn
		}()
		if c1, err = d.connect(t.Context(), record, 4242); err != nil {
			return nil, nil, nil, err
		}
		c2 = <-accepted
		return c1, c2, func() { c1.Close(); c2.Close() }, nil
	})
}

// TestDial against fake VMMs, whose guests echo at one port.
func TestDial(t *testing.T) {
	vm, inject := fakeMachine(t, fakevmm.Faults{})
	if err := vm.Start(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	conn, err := vm.Dial(t.Context(), fakevmm.EchoPort)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "hello"); err != nil {
		t.Fatal(err)
	}
	back := make([]byte, 5)
	if _, err := io.ReadFull(conn, back); err != nil || string(back) != "hello" {
		t.Errorf("%q, %v", back, err)
	}
	if _, ok := conn.(interface{ CloseWrite() error }); ok {
		t.Error("it has CloseWrite")
	}
	if got := conn.RemoteAddr().Network() + " " + conn.RemoteAddr().String(); got != "vsock 3:7" {
		t.Errorf("remote address %s", got)
	}
	if _, err := vm.Dial(t.Context(), fakevmm.EchoPort+1); !errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, microvm.ErrNoAnswer) || errors.Is(err, microvm.ErrExited) {
		t.Errorf("where nobody listens: %v", err)
	}
	inject(fakevmm.Faults{DeafVsock: true})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if _, err := vm.Dial(ctx, fakevmm.EchoPort); !errors.Is(err, microvm.ErrNoAnswer) || !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, microvm.ErrExited) {
		t.Errorf("where nobody answers: %v", err)
	}
	cancelled, stop := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, stop)
	if _, err := vm.Dial(cancelled, fakevmm.EchoPort); !errors.Is(err, context.Canceled) || errors.Is(err, microvm.ErrNoAnswer) {
		t.Errorf("cancelled: %v", err)
	}
	info, err := vm.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(info.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	inject(fakevmm.Faults{})
	for begin := time.Now(); ; {
		conn, err := vm.Dial(t.Context(), fakevmm.EchoPort)
		if err == nil { // it is not gone yet
			conn.Close()
		}
		if errors.Is(err, microvm.ErrExited) || errors.Is(err, microvm.ErrState) {
			break
		}
		if !errors.Is(err, syscall.ECONNREFUSED) && err != nil || time.Since(begin) > 10*time.Second {
			t.Fatalf("its VMM is gone: %v", err)
		}
	}
}

// TestRealNoAnswer: the real VMM waits for a driver that this guest never has; that is no refusal, and not for ever.
func TestRealNoAnswer(t *testing.T) {
	r := newRig(t, ring.Real(t), false, tinyguest.Program{Text: marker + "\n"})
	vm := r.create("one")
	defer r.destroy(vm)
	r.start(vm)
	if _, err := vm.Dial(t.Context(), 4242); !errors.Is(err, microvm.ErrNoAnswer) || errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("Dial = %v", err)
	}
}
