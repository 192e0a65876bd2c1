package sni_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/sni"
)

// patience is for what takes milliseconds.
const patience = 20 * time.Second

// certificate is good for every name.
func certificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"*.example", "evil.test"}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

// serve accepts connections for each, until the test ends.
func serve(t *testing.T, each func(*net.TCPConn)) netip.AddrPort {
	t.Helper()
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer conn.Close()
				conn.SetDeadline(time.Now().Add(patience))
				each(conn.(*net.TCPConn))
			})
		}
	})
	t.Cleanup(func() {
		listener.Close()
		running.Wait()
		collectPipes()
	})
	return listener.Addr().(*net.TCPAddr).AddrPort()
}

// collectPipes closes the pipes that the standard library has spliced through: it keeps them for two collections.
func collectPipes() {
	runtime.GC()
	runtime.GC()
}

// world is a gate before one server.
type world struct {
	gate    *sni.Gate
	address string
	denied  chan sni.Denied
	dials   chan netip.AddrPort
}

func startGate(t *testing.T, to netip.AddrPort, change func(*sni.Options)) *world {
	t.Helper()
	w := &world{denied: make(chan sni.Denied, 100), dials: make(chan netip.AddrPort, 100)}
	options := sni.Options{
		Original: func(net.Conn) (netip.AddrPort, error) { return to, nil },
		Allowed:  func(name string, at netip.AddrPort) bool { return strings.HasSuffix(name, ".example") && at == to },
		Dial: func(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
			w.dials <- to
			return (&net.Dialer{}).DialContext(ctx, "tcp4", to.String())
		},
		Denied: func(denied sni.Denied) { w.denied <- denied },
	}
	if change != nil {
		change(&options)
	}
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.address = listener.Addr().String()
	w.gate = sni.Serve(listener, options)
	t.Cleanup(func() {
		if err := w.gate.Close(); err != nil {
			t.Error(err)
		}
		collectPipes()
	})
	return w
}

func (w *world) dial(t *testing.T) *net.TCPConn {
	t.Helper()
	conn, err := net.Dial("tcp4", w.address)
	if err != nil {
		t.Fatal(err)
	}
	conn.SetDeadline(time.Now().Add(patience))
	t.Cleanup(func() { conn.Close() })
	return conn.(*net.TCPConn)
}

// expectDenied sees to the report of what just was. A nil want is any error.
func (w *world) expectDenied(t *testing.T, want error, name string) {
	t.Helper()
	select {
	case denied := <-w.denied:
		if denied.Err == nil || want != nil && !errors.Is(denied.Err, want) || denied.Name != name || !denied.From.IsValid() {
			t.Errorf("reported %+v, want %v of %q", denied, want, name)
		}
	case <-time.After(patience):
		t.Error("nothing was reported")
	}
	if len(w.dials) > 0 {
		t.Errorf("%s was dialled", <-w.dials)
	}
}

// fragmented sends the first thing that is written as a hello in records of n bytes.
type fragmented struct {
	net.Conn
	n    int
	once sync.Once
}

func (c *fragmented) Write(b []byte) (int, error) {
	first := false
	c.once.Do(func() { first = true })
	if !first {
		return c.Conn.Write(b)
	}
	for _, piece := range fragment(b, c.n) { // and in as many segments as TCP likes
		if _, err := c.Conn.Write([]byte{piece}); err != nil {
			return 0, err
		}
	}
	return len(b), nil
}

func TestTLSGoesThroughByItsName(t *testing.T) {
	certificate, pool := certificate(t)
	server := serve(t, func(conn *net.TCPConn) {
		secure := tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12})
		io.Copy(secure, secure)
		secure.CloseWrite()
	})
	w := startGate(t, server, nil)
	for what, config := range map[string]*tls.Config{"1.2": {MaxVersion: tls.VersionTLS12}, "1.3": {MinVersion: tls.VersionTLS13}} {
		for _, size := range []int{0, 100, 1000} {
			config := config.Clone()
			config.RootCAs = pool
			for _, name := range []string{"good.example", "evil.test"} {
				config.ServerName = name
				var conn net.Conn = w.dial(t)
				if size > 0 {
					conn = &fragmented{Conn: conn, n: size}
				}
				secure := tls.Client(conn, config)
				err := secure.Handshake()
				if name == "evil.test" {
					if err == nil || !strings.Contains(err.Error(), "unrecognized name") {
						t.Errorf("TLS %s for %s: %v", what, name, err)
					}
					w.expectDenied(t, sni.ErrName, name)
					continue
				}
				if err != nil {
					t.Errorf("TLS %s for %s in records of %d: %v", what, name, size, err)
					continue
				}
				if to := <-w.dials; to != server {
					t.Errorf("%s was dialled", to)
				}
				secure.Write([]byte("hello"))
				secure.CloseWrite()
				if answer, err := io.ReadAll(secure); err != nil || string(answer) != "hello" {
					t.Errorf("TLS %s: %q, %v", what, answer, err)
				}
			}
		}
	}
	if len(w.denied) > 0 {
		t.Errorf("%+v", <-w.denied)
	}
}

func TestWhatAsksForNoNameIsDenied(t *testing.T) {
	server := serve(t, func(conn *net.TCPConn) { io.Copy(conn, conn) })
	w := startGate(t, server, nil)
	hasty := startGate(t, server, func(o *sni.Options) { o.HelloTimeout = 20 * time.Millisecond })
	err := tls.Client(w.dial(t), &tls.Config{InsecureSkipVerify: true}).Handshake()
	if err == nil || !strings.Contains(err.Error(), "unrecognized name") {
		t.Errorf("TLS to an address: %v", err)
	}
	w.expectDenied(t, sni.ErrNoName, "")
	for first, w := range map[string]*world{"GET / HTTP/1.1\r\nHost: good.example\r\n\r\n": w, "\x16\x03\x01": hasty, "": hasty} {
		conn := w.dial(t)
		conn.Write([]byte(first))
		if n, err := conn.Read(make([]byte, 100)); n > 0 || err == nil || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%q: %d bytes, %v", first, n, err)
		}
		w.expectDenied(t, sni.ErrNotTLS, "")
	}
	// The control.
	conn := w.dial(t)
	hello := build(0, names(0, "good.example"))
	conn.Write(hello)
	if _, err := io.ReadFull(conn, make([]byte, len(hello))); err != nil {
		t.Errorf("an allowed name: %v", err)
	}
}

func TestBytesAndEndsArePassedOnAsTheyAre(t *testing.T) {
	const size = 8 << 20
	received := make(chan []byte, 1)
	sent := make([]byte, size)
	rand.Read(sent)
	server := serve(t, func(conn *net.TCPConn) {
		all, _ := io.ReadAll(conn) // until the client's end
		received <- all
		conn.Write(sent)
		conn.CloseWrite()
	})
	w := startGate(t, server, func(o *sni.Options) { o.LookEvery(10 * time.Millisecond) }) // which interrupts it again and again
	client := w.dial(t)
	stream := append(build(0, names(0, "good.example")), sent...)
	if _, err := client.Write(stream); err != nil {
		t.Fatal(err)
	}
	client.CloseWrite()
	if got := <-received; !bytes.Equal(got, stream) {
		t.Errorf("the server got %d bytes of %d, or others", len(got), len(stream))
	}
	if got, err := io.ReadAll(client); err != nil || !bytes.Equal(got, sent) {
		t.Errorf("the client got %d bytes of %d, or others: %v", len(got), size, err)
	}
}

func TestAnIdleConnectionEndsAndASlowOneDoesNot(t *testing.T) {
	const idle = time.Second
	server := serve(t, func(conn *net.TCPConn) { io.Copy(conn, conn) })
	w := startGate(t, server, func(o *sni.Options) { o.Idle = idle })
	client := w.dial(t)
	hello := build(0, names(0, "good.example"))
	client.Write(hello)
	if _, err := io.ReadFull(client, make([]byte, len(hello))); err != nil {
		t.Fatal(err)
	}
	for begin := time.Now(); time.Since(begin) < 3*idle/2; time.Sleep(idle / 10) {
		client.Write([]byte{1})
		if _, err := io.ReadFull(client, make([]byte, 1)); err != nil {
			t.Fatalf("a slow connection after %s: %v", time.Since(begin), err)
		}
	}
	if _, err := client.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("an idle connection ends as if it were complete: %v", err)
	}
}

func TestAServerThatCantBeReached(t *testing.T) {
	w := startGate(t, netip.MustParseAddrPort("127.0.0.1:1"), nil)
	client := w.dial(t)
	client.Write(build(0, names(0, "good.example")))
	if _, err := client.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("the client sees %v, and no error", err)
	}
}

func TestConnectionsToTheGateItself(t *testing.T) {
	w := startGate(t, netip.AddrPort{}, func(o *sni.Options) {
		o.Original = func(conn net.Conn) (netip.AddrPort, error) { return conn.LocalAddr().(*net.TCPAddr).AddrPort(), nil }
		o.Allowed = func(string, netip.AddrPort) bool { return true }
	})
	client := w.dial(t)
	client.Write(build(0, names(0, "good.example")))
	if _, err := client.Read(make([]byte, 1)); err == nil {
		t.Error("it is served")
	}
	w.expectDenied(t, nil, "")
}

func TestConnectionsAreBounded(t *testing.T) {
	server := serve(t, func(conn *net.TCPConn) { io.Copy(conn, conn) })
	w := startGate(t, server, func(o *sni.Options) { o.Connections = 2 })
	hello := build(0, names(0, "good.example"))
	pass := func(conn net.Conn) error {
		conn.Write(hello)
		_, err := io.ReadFull(conn, make([]byte, len(hello)))
		return err
	}
	first, second := w.dial(t), w.dial(t)
	if err := errors.Join(pass(first), pass(second)); err != nil {
		t.Fatal(err)
	}
	if err := pass(w.dial(t)); err == nil {
		t.Error("a third connection is served")
	}
	first.Close()
	for deadline := time.Now().Add(patience); pass(w.dial(t)) != nil; time.Sleep(time.Millisecond) { // when its place is free
		if time.Now().After(deadline) {
			t.Fatal("the place of a connection that has ended stays taken")
		}
	}
}

func TestReportsAreBounded(t *testing.T) {
	w := startGate(t, netip.MustParseAddrPort("127.0.0.1:1"), nil)
	reports, begin := 0, time.Now()
	for range 100 {
		conn := w.dial(t)
		conn.Write([]byte("GET / HTTP/1.1\r\n"))
		io.Copy(io.Discard, conn)
		conn.Close()
	}
	for len(w.denied) > 0 {
		<-w.denied
		reports++
	}
	most := 50 + int(10*time.Since(begin).Seconds()) + 1
	if reports < 50 || reports > most {
		t.Errorf("%d reports of a burst of 50, want at most %d", reports, most)
	}
}

func TestCloseEndsWhatGoesThrough(t *testing.T) {
	server := serve(t, func(conn *net.TCPConn) { io.Copy(conn, conn) })
	w := startGate(t, server, nil)
	through, waiting := w.dial(t), w.dial(t)
	hello := build(0, names(0, "good.example"))
	through.Write(hello)
	if _, err := io.ReadFull(through, make([]byte, len(hello))); err != nil {
		t.Fatal(err)
	}
	closed := make(chan error, 1)
	go func() { closed <- w.gate.Close() }()
	select {
	case err := <-closed:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Fatal("Close waits for connections")
	}
	for _, conn := range []net.Conn{through, waiting} {
		if _, err := conn.Read(make([]byte, 1)); err == nil {
			t.Error("a connection goes on after Close")
		}
	}
}
