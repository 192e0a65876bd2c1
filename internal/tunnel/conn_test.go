package tunnel

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/nettest"

	"github.com/tangle-network/microvm-runtime/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long anything here may take.
const patience = 20 * time.Second

// sockets returns two ends of a connection with a buffer.
func sockets(t *testing.T) (a, b net.Conn) {
	t.Helper()
	listener, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if a, err = net.Dial("unix", listener.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if b, err = listener.Accept(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []net.Conn{a, b} {
		c.SetDeadline(time.Now().Add(patience))
		t.Cleanup(func() { c.Close() })
	}
	return a, b
}

func over(c net.Conn) *Conn { return New(c, bufio.NewReader(c), c.RemoteAddr()) }

func pair(t *testing.T) (a, b *Conn) {
	t.Helper()
	x, y := sockets(t)
	return over(x), over(y)
}

func TestConnIsANetConn(t *testing.T) {
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		a, b := pair(t)
		a.SetDeadline(time.Time{})
		b.SetDeadline(time.Time{})
		return a, b, func() { a.Close(); b.Close() }, nil
	})
}

func TestEachDirectionEndsOnItsOwn(t *testing.T) {
	a, b := pair(t)
	a.Write([]byte("question"))
	if err := a.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Write([]byte("more")); err == nil {
		t.Error("more was written after the end")
	}
	if got, err := io.ReadAll(b); err != nil || string(got) != "question" {
		t.Errorf("%q, %v", got, err)
	}
	b.Write([]byte("answer"))
	b.Close()
	if got, err := io.ReadAll(a); err != nil || string(got) != "answer" {
		t.Errorf("%q, %v", got, err)
	}
	a.Close()
	if _, err := a.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func TestACutIsNoEnd(t *testing.T) {
	for name, how := range map[string]func(*Conn, net.Conn){
		"by its side":     func(c *Conn, _ net.Conn) { c.Cut() },
		"below":           func(_ *Conn, raw net.Conn) { raw.Close() },
		"within a frame":  func(_ *Conn, raw net.Conn) { raw.Write(wire.Append(nil, wire.Data, []byte("abc"))[:6]); raw.Close() },
		"within a header": func(_ *Conn, raw net.Conn) { raw.Write([]byte{byte(wire.Data), 0}); raw.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			x, y := sockets(t)
			a, b := over(x), over(y)
			a.Write([]byte("part"))
			how(a, x)
			if got, err := io.ReadAll(b); !errors.Is(err, ErrCut) || !errors.Is(err, io.ErrUnexpectedEOF) || !bytes.HasPrefix(got, []byte("part")) {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
}

func TestWhatIsNoTunnelIsRefused(t *testing.T) {
	for name, frames := range map[string][]byte{
		"another kind":       wire.Append(nil, wire.Stdin, []byte("a")),
		"no kind":            {0, 0, 0, 0, 0},
		"too long":           {byte(wire.Data), 255, 255, 255, 255},
		"data after the end": wire.Append(wire.Append(nil, wire.DataEnd, nil), wire.Data, []byte("a")),
		"an end with data":   wire.Append(nil, wire.DataEnd, []byte("a")),
	} {
		t.Run(name, func(t *testing.T) {
			x, y := sockets(t)
			y.Write(frames)
			c := over(x)
			_, err := c.Read(make([]byte, 1))
			if name == "data after the end" {
				if err != io.EOF {
					t.Errorf("the end: %v", err)
				}
				err = c.next()
			}
			if !errors.Is(err, wire.ErrFrame) {
				t.Errorf("error %v", err)
			}
		})
	}
}

// TestADeadlineWithinAFrameLosesNothing writes with deadlines that pass, to a reader that stalls for a while: what was said to be written is what comes.
func TestADeadlineWithinAFrameLosesNothing(t *testing.T) {
	a, b := pair(t)
	data := make([]byte, 4<<20)
	for i := range data {
		data[i] = byte(i * 7 >> 3)
	}
	reading := make(chan struct{})
	got := make(chan []byte, 1)
	go func() {
		<-reading
		all, _ := io.ReadAll(b)
		got <- all
	}()
	timeouts, n := 0, 0
	for n < len(data) {
		a.SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
		sent, err := a.Write(data[n:min(len(data), n+100_000)])
		n += sent
		if errors.Is(err, os.ErrDeadlineExceeded) {
			if timeouts++; timeouts == 3 {
				close(reading)
			}
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if err := a.CloseWrite(); err != nil {
		t.Error(err)
	}
	if all := <-got; !bytes.Equal(all, data) {
		t.Errorf("%d bytes came, want %d", len(all), len(data))
	}
	if timeouts < 3 {
		t.Errorf("only %d deadlines passed", timeouts)
	}
}

func TestAnUnfinishedWriteHasNoEnd(t *testing.T) {
	x, y := net.Pipe()
	defer y.Close()
	c := over(x)
	go func() {
		y.Read(make([]byte, wire.HeaderSize+2))
		c.SetWriteDeadline(time.Now()) // which interrupts the rest
	}()
	if n, err := c.Write([]byte("abcd")); n != 2 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("%d, %v", n, err)
	}
	if err := c.CloseWrite(); !errors.Is(err, ErrCut) {
		t.Errorf("CloseWrite: %v", err)
	}
	c.Close()
}
