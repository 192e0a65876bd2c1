//go:build linux

package agent

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/tree"
	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// pretended is a process without anything that runs: it has said "out" and ended, and nothing reads its input.
func pretended(request *wire.Exec) (*process, error) {
	if _, err := resolve(request, nil); err != nil {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	r.Close()
	p := newProcess(request)
	p.child, p.stdin, p.reaped = &child{}, w, true
	p.stdout.Write([]byte("out"))
	p.stdout.End()
	p.stderr.End()
	close(p.exited)
	return p, nil
}

// single is a listener with one connection.
type single struct {
	conn   chan net.Conn
	closed chan struct{}
}

func (s *single) Accept() (net.Conn, error) {
	select {
	case conn := <-s.conn:
		return conn, nil
	case <-s.closed:
		return nil, net.ErrClosed
	}
}

func (s *single) Close() error {
	close(s.closed)
	return nil
}

func (s *single) Addr() net.Addr { return &net.UnixAddr{} }

// panics fails the test when the HTTP server says that it recovered from one.
type panics struct{ t *testing.T }

func (p panics) Write(text []byte) (int, error) {
	if bytes.Contains(text, []byte("panic")) {
		p.t.Errorf("%s", text)
	}
	return len(text), nil
}

func post(path, header, body string) string {
	return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: agent\r\n%sContent-Length: %d\r\n\r\n%s", path, header, len(body), body)
}

// taken takes files, and makes none.
func taken(_ context.Context, r io.Reader, target string, _ tree.PutOptions) (tree.Progress, error) {
	n, err := io.Copy(io.Discard, r)
	return tree.Progress{Bytes: n, File: target}, err
}

// FuzzHost is a host that sends what it wants.
func FuzzHost(f *testing.F) {
	upgrade := "Connection: Upgrade\r\nUpgrade: " + wire.Upgrade + "\r\n"
	exec := post(wire.PathExec, upgrade, `{"id":"a","argv":["true"],"stdin":true}`)
	renew := `{"token":"a","generation":"b","unix_ns":1,"entropy":"` + strings.Repeat("A", 64) + `","machine_id":"` + machineID + `","hostname":"c","env":{"A":"b"},"secrets":{"s":"AA=="}}`
	for _, seed := range []string{
		"", "GET /v1/health HTTP/1.1\r\nHost: agent\r\n\r\n", exec,
		exec + string(wire.Append(nil, wire.Stdin, []byte("in"))) + string(wire.AppendAck(nil, wire.AckStdout, 3)) + string(wire.Append(nil, wire.Done, nil)),
		post(wire.PathExec, upgrade, `{"id":"a","argv":["true"],"stdout":18446744073709551615,"stderr":4,"timeout_ms":-9223372036854775808}`),
		post(wire.PathExec, "", `{"id":"a","argv":["true"],"detached":true}`) + "GET /v1/processes HTTP/1.1\r\nHost: agent\r\n\r\n" +
			post(wire.PathExec, upgrade, `{"id":"a","attach":true,"kept":true,"nonce":"b"}`),
		post(wire.PathExec, upgrade, `{"id":"a","argv":["true"],"user":":","dir":"\u0000"}`), post(wire.PathSignal, "", `{"id":"a","signal":-1}`),
		post(wire.PathFilesWrite, upgrade, `{"path":"/a","tar":true}`) + string(wire.Append(wire.Append(nil, wire.Data, []byte("data")), wire.DataEnd, nil)),
		post(wire.PathFilesWrite, upgrade, `{"path":"/a","name":"../a","contents":true}`) + string(wire.Append(nil, wire.Stdin, nil)),
		post(wire.PathFilesRead, upgrade, `{"path":"/","name":"a"}`), post(wire.PathFilesRead, upgrade, `{"path":"/proc/self/stat","raw":true}`) + "more",
		post(wire.PathFilesWrite, upgrade, `{"path":"/a","tar":true,"id":"a"}`) + string(wire.Append(nil, wire.Data, []byte("data"))), post(wire.PathFilesWrite, upgrade, `{"path":"/a","id":"a","attach":true,"attempt":18446744073709551615}`),
		post(wire.PathFilesCompare, upgrade, `{"path":"/a","exact":true}`) + string(wire.Append(nil, wire.DataEnd, nil)), post(wire.PathFilesEnd, "", `{"id":"a"}`),
		post(wire.PathFilesRead, upgrade, `{"path":"/","name":".","from":{"after":"YQ==","file":"Yg==","offset":-1},"have":"Yw==","heads":true}`),
		post(wire.PathFilesWatch, upgrade, `{"path":"/"}`), post(wire.PathFilesWatch, upgrade, `{"path":"/none/none","file":true}`), post(wire.PathEvents, upgrade, `{"boot":"a","after":18446744073709551615}`),
		post(wire.PathFilesStat, "", `{"path":"/","follow":true}`), post(wire.PathFilesStat, "", `{"path":"a\u0000"}`),
		post(wire.PathFreeze, "", `{"token":"a","lease_ns":1000000}`) + exec, post(wire.PathFreeze, "", `{"token":"a","lease_ns":60000000000}`) + post(wire.PathThaw, "", `{"token":"a"}`) + exec,
		post(wire.PathFreeze, "", `{"token":"a","lease_ns":60000000000}`) + post(wire.PathRenew, "", renew), post(wire.PathRenew, "", `{"token":"a","generation":"b","unix_ns":9223372036854775807,"entropy":"AA==","machine_id":"..","hostname":"/"}`),
		post(wire.PathShutdown, "", "{}") + post(wire.PathSync, "", "{}"), strings.Repeat("GET / HTTP/1.1\r\n", 100),
		post(wire.PathDial, upgrade, `{"target":"a:1"}`) + string(wire.Append(wire.Append(nil, wire.Data, []byte("in")), wire.DataEnd, nil)), post(wire.PathAccept, upgrade, `{"id":"a","number":1}`),
		post(wire.PathEnv, "", `{"set":{"A":"b","B":""}}`) + exec, "GET /v1/secrets HTTP/1.1\r\nHost: agent\r\n\r\n", "PUT /v1/secrets/%2e%2e HTTP/1.1\r\nHost: agent\r\nContent-Length: 1\r\n\r\na",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		root := t.TempDir()
		s := New(Options{Shutdown: func() {}, System: &System{
			Root: root, May: func() bool { return true }, SetClock: func(time.Time) error { return nil }, AddEntropy: func([]byte) error { return nil }, SetHostname: func(string) error { return nil },
		}})
		s.launch, s.flush, s.log = pretended, func() {}, log.New(panics{t}, "", 0)
		s.dialer = func(context.Context, string, string) (net.Conn, error) {
			own, theirs := net.Pipe()
			go func() { io.Copy(own, own); own.Close() }()
			return theirs, nil
		}
		s.put, s.unpack, s.pack = taken, taken, func(_ context.Context, w io.Writer, at string, _ tree.PackOptions) (tree.Progress, error) {
			n, err := io.WriteString(w, at)
			return tree.Progress{Bytes: int64(n)}, err
		}
		listener := &single{make(chan net.Conn), make(chan struct{})}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Serve(ctx, listener) }()
		own, theirs := net.Pipe()
		listener.conn <- theirs
		read := make(chan struct{})
		go func() {
			io.Copy(io.Discard, own)
			close(read)
		}()
		own.Write(data) // it may hang up before
		own.Close()
		<-read
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if text, err := os.ReadFile(filepath.Join(root, generationFile)); err == nil && !wire.ValidID(strings.TrimSuffix(string(text), "\n")) {
			t.Errorf("a generation %q", text)
		}
	})
}

// FuzzFrames is a host that sends what it wants after it has attached.
func FuzzFrames(f *testing.F) {
	for _, seed := range [][]byte{
		nil, wire.Append(nil, wire.Stdin, []byte("in")), wire.Append(nil, wire.StdinEnd, nil), wire.AppendResize(nil, wire.TTY{Rows: 1}), wire.AppendAck(nil, wire.AckStdout, 3), wire.AppendAck(nil, wire.AckStderr, 1<<63),
		wire.Append(wire.Append(nil, wire.Done, nil), wire.Stdin, nil), {1, 0xff, 0xff, 0xff, 0xff},
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		request := &wire.Exec{ID: "a", Argv: []string{"/bin/true"}}
		p, err := pretended(request)
		if err != nil {
			t.Fatal(err)
		}
		own, theirs := net.Pipe()
		go io.Copy(io.Discard, own)
		a := p.adopt(theirs, request)
		a.serve(bufio.NewReader(bytes.NewReader(data)))
		p.release()
		if p.received > uint64(len(data)) || p.attachedTo(a) {
			t.Errorf("%d bytes of input came in %d", p.received, len(data))
		}
	})
}
