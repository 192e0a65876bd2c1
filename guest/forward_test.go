//go:build linux

package guest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/nettest"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/guest"
	"github.com/tangle-network/microvm-runtime/guest/guesttest"
	"github.com/tangle-network/microvm-runtime/internal/wire"
)

type halfCloser interface {
	net.Conn
	CloseWrite() error
}

// serve listens on a network, and answers each connection until the test ends.
func serve(t *testing.T, network, address string, answer func(halfCloser)) string {
	t.Helper()
	listener, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	var answering sync.WaitGroup
	answering.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			conn.SetDeadline(time.Now().Add(patience))
			answering.Go(func() {
				defer conn.Close()
				answer(conn.(halfCloser))
			})
		}
	})
	t.Cleanup(func() {
		listener.Close()
		answering.Wait()
	})
	return listener.Addr().String()
}

const patience = 20 * time.Second

// afterAll answers when the question has ended, which takes a half-close.
func afterAll(c halfCloser) {
	question, err := io.ReadAll(c)
	fmt.Fprintf(c, "%d bytes, %v", len(question), err)
}

// echo says what it hears.
func echo(c halfCloser) {
	io.Copy(c, c)
	c.CloseWrite()
	io.Copy(io.Discard, c)
}

func dialTCP(t *testing.T, d guest.Dialer, target string) halfCloser {
	t.Helper()
	conn, err := guest.DialTCP(t.Context(), d, target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	return conn.(halfCloser)
}

// converse asks and reads the answer to its end.
func converse(c halfCloser, question string) (string, error) {
	go func() {
		io.WriteString(c, question)
		c.CloseWrite()
	}()
	answer, err := io.ReadAll(c)
	return string(answer), err
}

func TestDialTCP(t *testing.T) {
	a := guesttest.New(t)
	unix := filepath.Join(t.TempDir(), "socket")
	for name, target := range map[string]string{"TCP": serve(t, "tcp", "127.0.0.1:0", afterAll), "Unix": serve(t, "unix", unix, afterAll)} {
		t.Run(name, func(t *testing.T) {
			if got, err := converse(dialTCP(t, a, target), strings.Repeat("a", 1<<20)); err != nil || got != "1048576 bytes, <nil>" {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
}

func TestDialTCPIsANetConn(t *testing.T) {
	a := guesttest.New(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		if c1, err = guest.DialTCP(t.Context(), a, listener.Addr().String()); err != nil {
			return nil, nil, nil, err
		}
		c2, err = listener.Accept()
		return c1, c2, func() { c1.Close(); c2.Close() }, err
	})
}

func TestFiftyTunnelsAtOnce(t *testing.T) {
	a := guesttest.New(t)
	target := serve(t, "tcp", "127.0.0.1:0", echo)
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() {
			want := strings.Repeat(fmt.Sprint(i), 100_000)
			conn, err := guest.DialTCP(t.Context(), a, target)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(patience))
			if got, err := converse(conn.(halfCloser), want); got != want || err != nil {
				t.Errorf("%d: %d bytes, %v", i, len(got), err)
			}
		})
	}
	all.Wait()
}

func TestAStalledReaderHoldsTheTargetUp(t *testing.T) {
	a := guesttest.New(t)
	const total = 64 << 20
	data := bytes.Repeat([]byte("0123456789abcdef"), 4096)
	stalled := make(chan int, 1)
	target := serve(t, "tcp", "127.0.0.1:0", func(c halfCloser) {
		n := 0
		for n < total {
			c.SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
			sent, err := c.Write(data[n%len(data):])
			if n += sent; errors.Is(err, os.ErrDeadlineExceeded) {
				select {
				case stalled <- n:
				default:
				}
			} else if err != nil {
				return
			}
		}
	})
	conn := dialTCP(t, a, target)
	select {
	case n := <-stalled:
		if n > total/2 {
			t.Errorf("%d bytes are kept for a reader that stalls", n)
		}
	case <-time.After(patience):
		t.Fatal("the target is never held up")
	}
	got, err := io.ReadAll(conn)
	if err != nil || len(got) != total || !bytes.Equal(got[total-len(data):], data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func TestTargetsThatDoNotAnswer(t *testing.T) {
	a := guesttest.New(t)
	const closed = "127.0.0.1:1" // which no other test listens at
	for name, tc := range map[string]struct {
		target string
		want   error
	}{
		"nobody listens":  {closed, syscall.ECONNREFUSED},
		"no socket":       {filepath.Join(t.TempDir(), "none"), guest.ErrNotFound},
		"no port":         {"127.0.0.1", microvm.ErrInvalid},
		"port 0":          {"127.0.0.1:0", microvm.ErrInvalid},
		"a port too high": {"127.0.0.1:65536", microvm.ErrInvalid},
		"no host":         {":80", microvm.ErrInvalid},
		"a relative path": {"socket", microvm.ErrInvalid},
		"a long path":     {"/" + strings.Repeat("a", 107), microvm.ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := guest.DialTCP(t.Context(), a, tc.target); !errors.Is(err, tc.want) {
				t.Errorf("error %v, want %v", err, tc.want)
			}
		})
	}
}

func TestACutTunnelIsNoEnd(t *testing.T) {
	a := guesttest.New(t)
	ended := make(chan error, 1)
	conn := dialTCP(t, a, serve(t, "tcp", "127.0.0.1:0", func(c halfCloser) {
		io.WriteString(c, "part")
		_, err := io.ReadAll(c)
		ended <- err
	}))
	if _, err := io.ReadFull(conn, make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
	if a.Cut() == 0 {
		t.Fatal("nothing was cut")
	}
	if n, err := conn.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Errorf("the host reads %d bytes, %v", n, err)
	}
	if err := <-ended; !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the target reads %v", err)
	}
}

// started runs what serves until its context ends, and checks that its cause is what it returns.
func started(t *testing.T, serve func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancelCause(context.Background())
	done := make(chan error, 1)
	go func() { done <- serve(ctx) }()
	t.Cleanup(func() {
		enough := errors.New("enough")
		cancel(enough)
		select {
		case err := <-done:
			if !errors.Is(err, enough) {
				t.Errorf("it ends with %v", err)
			}
		case <-time.After(patience):
			t.Error("it goes on")
		}
	})
}

func TestForward(t *testing.T) {
	a := guesttest.New(t)
	socket := filepath.Join(t.TempDir(), "target")
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	started(t, func(ctx context.Context) error { return guest.Forward(ctx, a, listener, socket) })
	connect := func() halfCloser {
		conn, err := net.Dial("tcp", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		conn.SetDeadline(time.Now().Add(patience))
		return conn.(halfCloser)
	}
	if err := refusal(listener.Addr()); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("while nobody listens: %v", err)
	}
	serve(t, "unix", socket, afterAll)
	for range 3 {
		if got, err := converse(connect(), "question"); err != nil || got != "8 bytes, <nil>" {
			t.Errorf("%q, %v", got, err)
		}
		a.Cut()
	}
	connect() // says nothing, and holds nobody up at the end
}

// refusal connects and returns how that ends: the reset may come before connect(2) has returned.
func refusal(address net.Addr) error {
	conn, err := net.Dial(address.Network(), address.String())
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	_, err = conn.Read(make([]byte, 1))
	return err
}

func TestForwardEndsWithItsMachine(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone := fading{guesttest.New(t), make(chan struct{})}
	done := make(chan error, 1)
	go func() { done <- guest.Forward(t.Context(), gone, listener, "127.0.0.1:1") }()
	if err := refusal(listener.Addr()); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("while the machine is there: %v", err)
	}
	close(gone.out)
	refusal(listener.Addr())
	if err := within(t, func() error { return <-done }); !errors.Is(err, microvm.ErrExited) {
		t.Errorf("error %v", err)
	}
}

// fading is an agent whose machine ends.
type fading struct {
	guest.Dialer
	out chan struct{}
}

func (f fading) Dial(ctx context.Context, port uint32) (net.Conn, error) {
	select {
	case <-f.out:
		return nil, microvm.ErrExited
	default:
		return f.Dialer.Dial(ctx, port)
	}
}

func TestForwardBack(t *testing.T) {
	a := guesttest.New(t)
	socket := filepath.Join(t.TempDir(), "guest")
	target := serve(t, "tcp", "127.0.0.1:0", afterAll)
	fails := make(chan error, 1)
	started(t, func(ctx context.Context) error {
		return guest.ForwardBack(ctx, a, socket, func(ctx context.Context) (net.Conn, error) {
			select {
			case err := <-fails:
				return nil, err
			default:
				return new(net.Dialer).DialContext(ctx, "tcp", target)
			}
		})
	})
	connect := func() halfCloser {
		for begin := time.Now(); ; time.Sleep(time.Millisecond) {
			conn, err := net.Dial("unix", socket)
			if err == nil {
				t.Cleanup(func() { conn.Close() })
				conn.SetDeadline(time.Now().Add(patience))
				return conn.(halfCloser)
			}
			if time.Since(begin) > patience {
				t.Fatal(err)
			}
		}
	}
	if got, err := converse(connect(), "question"); err != nil || got != "8 bytes, <nil>" {
		t.Errorf("%q, %v", got, err)
	}
	fails <- errors.New("no")
	if got, err := converse(connect(), "question"); got != "" {
		t.Errorf("where dial fails: %q, %v", got, err)
	}
	var all sync.WaitGroup
	for range 50 {
		conn := connect()
		all.Go(func() {
			if got, err := converse(conn, "question"); err != nil || got != "8 bytes, <nil>" {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
	all.Wait()
	a.Cut()
	for begin := time.Now(); ; time.Sleep(time.Millisecond) { // it listens again
		if got, _ := converse(connect(), "question"); got == "8 bytes, <nil>" {
			break
		}
		if time.Since(begin) > patience {
			t.Fatal("nobody answers after a cut")
		}
	}
}

func TestListenRefuses(t *testing.T) {
	a := guesttest.New(t)
	taken := serve(t, "tcp", "127.0.0.1:0", echo)
	for name, tc := range map[string]struct {
		address string
		want    error
	}{
		"an address in use":     {taken, microvm.ErrExists},
		"an address of another": {"192.0.2.1:80", guest.ErrNotFound},
		"no directory":          {filepath.Join(t.TempDir(), "none", "socket"), guest.ErrNotFound},
		"no port":               {"127.0.0.1", microvm.ErrInvalid},
	} {
		if _, err := guest.Listen(t.Context(), a, tc.address); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
	}
	socket := filepath.Join(t.TempDir(), "socket")
	for range 2 { // Close makes room
		l, err := guest.Listen(t.Context(), a, socket)
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
		for begin := time.Now(); time.Since(begin) < patience; time.Sleep(time.Millisecond) {
			if _, err := os.Stat(socket); err != nil {
				break
			}
		}
	}
}

func TestTheNumberOfListenersIsBounded(t *testing.T) {
	a := guesttest.New(t)
	dir := t.TempDir()
	for i := range wire.MaxListeners + 1 {
		l, err := guest.Listen(t.Context(), a, filepath.Join(dir, fmt.Sprint(i)))
		if err == nil {
			defer l.Close()
		}
		if full := i == wire.MaxListeners; full != errors.Is(err, microvm.ErrBusy) || !full && err != nil {
			t.Fatalf("listener %d: %v", i, err)
		}
	}
}
