package tunnel

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"
)

// tcp returns two ends of a TCP connection.
func tcp(t *testing.T) (near, far *net.TCPConn) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	a, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []net.Conn{a, b} {
		c.SetDeadline(time.Now().Add(patience))
		t.Cleanup(func() { c.Close() })
	}
	return a.(*net.TCPConn), b.(*net.TCPConn)
}

// chain is client - Join - tunnel - Serve - target, as host and guest have it.
func chain(t *testing.T, ctx context.Context) (client, target *net.TCPConn, hostEnd *Conn) {
	client, near := tcp(t)
	far, target := tcp(t)
	host, guest := pair(t)
	var joined sync.WaitGroup
	joined.Go(func() { Join(ctx, near, host) })
	joined.Go(func() { Serve(ctx, far, guest) })
	t.Cleanup(func() {
		client.Close()
		target.Close()
		joined.Wait()
	})
	return client, target, host
}

func TestJoinPassesEndsOn(t *testing.T) {
	client, target, _ := chain(t, t.Context())
	for name, ends := range map[string][2]*net.TCPConn{"there": {client, target}, "back": {target, client}} {
		ends[0].Write([]byte(name))
		ends[0].CloseWrite()
		if got, err := io.ReadAll(ends[1]); err != nil || string(got) != name {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func TestJoinPassesBreaksOn(t *testing.T) {
	for name, end := range map[string]func(cancel func(), client, target *net.TCPConn, host *Conn) (left *net.TCPConn){
		"the client resets":  func(_ func(), c, s *net.TCPConn, _ *Conn) *net.TCPConn { Cut(c); return s },
		"the target resets":  func(_ func(), c, s *net.TCPConn, _ *Conn) *net.TCPConn { Cut(s); return c },
		"the tunnel is cut":  func(_ func(), c, s *net.TCPConn, h *Conn) *net.TCPConn { h.conn.Close(); return s },
		"the context's end":  func(cancel func(), c, s *net.TCPConn, _ *Conn) *net.TCPConn { cancel(); return c },
		"cut, on the client": func(_ func(), c, s *net.TCPConn, h *Conn) *net.TCPConn { h.conn.Close(); return c },
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			client, target, host := chain(t, ctx)
			client.Write([]byte("x"))
			io.ReadFull(target, make([]byte, 1))
			left := end(cancel, client, target, host)
			if n, err := left.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("%d bytes, %v", n, err)
			}
		})
	}
}

// TestATargetThatTakesNoMoreIsHeardToItsEnd is a server that answers before it has read all, and closes its reading side.
func TestATargetThatTakesNoMoreIsHeardToItsEnd(t *testing.T) {
	near, guest := pair(t)
	x, y := sockets(t)
	done := make(chan struct{})
	go func() { defer close(done); Serve(t.Context(), x, guest) }()
	y.(*net.UnixConn).CloseRead()
	for range 10 {
		if _, err := near.Write(make([]byte, 100_000)); err != nil {
			t.Fatal(err)
		}
	}
	y.Write([]byte("answer"))
	y.(*net.UnixConn).CloseWrite()
	if got, _ := io.ReadAll(near); string(got) != "answer" {
		t.Errorf("%q", got)
	}
	near.Close()
	<-done
}

// TestServeSeesTheHostGo is a host that has ended its direction and closes, while the target says nothing.
func TestServeSeesTheHostGo(t *testing.T) {
	host, guest := pair(t)
	far, target := tcp(t)
	done := make(chan struct{})
	go func() { defer close(done); Serve(t.Context(), far, guest) }()
	host.Write([]byte("bye"))
	host.Close()
	if got, err := io.ReadAll(target); err != nil || string(got) != "bye" {
		t.Errorf("%q, %v", got, err)
	}
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatal("it waits for a host that is gone")
	}
}

// TestJoinWithoutHalfClose is what the end of one direction does to a connection that can't be half closed.
func TestJoinWithoutHalfClose(t *testing.T) {
	mine, theirs := net.Pipe()
	host, guest := pair(t)
	done := make(chan struct{})
	go func() { defer close(done); Join(t.Context(), theirs, host) }()
	go func() { guest.Write([]byte("all")); guest.CloseWrite() }()
	if got, err := io.ReadAll(mine); err != nil || string(got) != "all" {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := io.ReadAll(guest); err != nil || len(got) != 0 {
		t.Errorf("the other direction: %q, %v", got, err)
	}
	<-done
}

// scarce is a connection that lives on when there was no memory for its second packet: its first so many bytes were sent.
type scarce struct {
	net.Conn
	sent    int
	packets int
}

func (s *scarce) Write(p []byte) (int, error) {
	if s.packets++; s.packets == 2 {
		n, _ := s.Conn.Write(p[:s.sent])
		return n, &net.OpError{Op: "write", Err: syscall.ENOMEM}
	}
	return s.Conn.Write(p)
}

// TestWhatWasNotSentIsNoEnd is a part that is lost on the way to a host: it must neither get an end in its place, nor wait for the rest.
func TestWhatWasNotSentIsNoEnd(t *testing.T) {
	for name, sent := range map[string]int{"a whole frame": 0, "the rest of a header": 2, "the rest of a frame": 7} {
		t.Run(name, func(t *testing.T) {
			x, y := sockets(t)
			host, guest := over(x), over(&scarce{Conn: y, sent: sent})
			far, target := tcp(t)
			done := make(chan struct{})
			go func() { defer close(done); Serve(t.Context(), far, guest) }()
			target.Write([]byte("first"))
			if _, err := io.ReadFull(host, make([]byte, 5)); err != nil {
				t.Fatal(err)
			}
			target.Write([]byte("second"))
			target.CloseWrite()
			if _, err := io.ReadAll(host); !errors.Is(err, ErrCut) {
				t.Errorf("error %v, want %v", err, ErrCut)
			}
			host.Close()
			<-done
		})
	}
}
