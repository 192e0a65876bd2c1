//go:build linux

package agent

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// memory is a directory of memory that is not there yet.
func memory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "microvm-agent-")
	if err != nil {
		t.Skipf("this host has no directory of memory: %v", err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "microvm", "secrets")
}

func TestSecretsStayInMemory(t *testing.T) {
	for name, tc := range map[string]struct {
		dir  string
		code string
	}{"memory": {memory(t), ""}, "a disk": {filepath.Join("/var/tmp", filepath.Base(t.TempDir()), "secrets"), wire.CodeDenied}, "nowhere": {"", wire.CodeDenied}} {
		if tc.dir != "" && tc.code != "" {
			t.Cleanup(func() { os.RemoveAll(filepath.Dir(tc.dir)) })
		}
		h := newHost(t, Options{Secrets: tc.dir})
		status, text := h.ask("PUT", wire.PathSecrets+"/a", "", "s3cret")
		var e wire.Error
		json.Unmarshal(text, &e)
		if e.Code != tc.code || (status == 200) != (tc.code == "") || strings.Contains(string(text), "s3cret") {
			t.Errorf("%s: %d, %s", name, status, text)
		}
		if tc.dir != "" {
			if _, err := os.Stat(filepath.Join(tc.dir, "a")); (err == nil) != (tc.code == "") {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

func TestSecretsThatAreRefused(t *testing.T) {
	dir := memory(t)
	h := newHost(t, Options{Secrets: dir})
	for path, code := range map[string]int{"/a": 200, "/a%2fb": 400, "/..": 404, "/%2e%2e": 400, "/a.b": 400, "/a/b": 404, "/": 400} {
		status, text := h.ask("PUT", wire.PathSecrets+path, "", "s3cret")
		if status != code && (code == 200 || status/100 == 2) || strings.Contains(string(text), "s3cret") {
			t.Errorf("%s: status %d, %s", path, status, text)
		}
	}
	if status, _ := h.ask("PUT", wire.PathSecrets+"/b", "", strings.Repeat("a", wire.MaxSecret+1)); status != 400 {
		t.Errorf("a secret too large: status %d", status)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 || entries[0].Name() != "a" {
		t.Errorf("%v, %v", entries, err)
	}
	os.WriteFile(filepath.Join(dir, "of another."), nil, 0o600)
	if _, text := h.ask("GET", wire.PathSecrets, "", ""); strings.TrimSpace(string(text)) != `{"names":["a"]}` {
		t.Errorf("%s", text)
	}
}

// line is a host of the older protocol.
type line struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
}

func dialMetadata(t *testing.T, s *Server) func() *line {
	t.Helper()
	listener, err := net.Listen("unix", filepath.Join(t.TempDir(), "metadata"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.ServeMetadata(ctx, listener) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return func() *line {
		conn, err := net.Dial("unix", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		conn.SetDeadline(time.Now().Add(patience))
		t.Cleanup(func() { conn.Close() })
		return &line{t, conn, bufio.NewReader(conn)}
	}
}

// expect reads one answer.
func (l *line) expect(id string, ok bool, says string) {
	l.t.Helper()
	text, err := l.in.ReadString('\n')
	var reply struct {
		ID    *string
		OK    *bool
		Error *string
	}
	if err == nil {
		err = json.Unmarshal([]byte(text), &reply)
	}
	if err != nil || reply.ID == nil || *reply.ID != id || reply.OK == nil || *reply.OK != ok || (reply.Error == nil) != ok || !ok && !strings.Contains(*reply.Error, says) {
		l.t.Errorf("%s, %v; want id %q, %v, %q", text, err, id, ok, says)
	}
	if strings.Contains(text, "s3cret") || strings.Contains(text, base64.StdEncoding.EncodeToString([]byte("s3cret"))) {
		l.t.Errorf("the answer has a value: %s", text)
	}
}

func TestMetadata(t *testing.T) {
	dir := memory(t)
	s := New(Options{Secrets: dir})
	l := dialMetadata(t, s)()
	secret := base64.StdEncoding.EncodeToString([]byte("s3cret"))
	io.WriteString(l.conn, strings.Join([]string{ // all at once: the answers come in order
		`{"op": "ping", "id": "1"}`,
		`{"op": "set_env", "id": "2", "env": {"A": "a", "B": "b"}}` + "\r",
		`{"op": "set_env", "id": "3", "env": {"B": "", "C": "c"}}`,
		`{"op": "set_env", "id": "4", "env": {"A": "s3cret", "1": "s3cret"}}`,
		`{"op": "set_secret", "id": "5", "name": "token", "value_b64": "` + secret + `"}`,
		`{"op": "set_secret", "id": "6", "name": "../token", "value_b64": "` + secret + `"}`,
		`{"op": "set_secret", "id": "7", "name": "bad", "value_b64": "` + secret + `!"}`,
		`no JSON s3cret`,
		``,
		`{"op": "exec", "id": "8"}`,
		`{"op": "ping", "id": "9"}`,
	}, "\n")+"\n")
	l.expect("1", true, "")
	l.expect("2", true, "")
	l.expect("3", true, "")
	l.expect("4", false, `"1"`)
	l.expect("5", true, "")
	l.expect("6", false, "token")
	l.expect("", false, "JSON")
	l.expect("", false, "JSON")
	l.expect("", false, "JSON")
	l.expect("8", false, "exec")
	l.expect("9", true, "")
	if got := strings.Join(s.env.list(), " "); got != "A=a C=c" {
		t.Errorf("variables %q", got)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "token")); err != nil || string(got) != "s3cret" {
		t.Errorf("the secret is %q, %v", got, err)
	}
}

func TestMetadataIsBounded(t *testing.T) {
	l := dialMetadata(t, New(Options{}))()
	ping := `{"op": "ping", "id": "1"}`
	fmt.Fprintf(l.conn, "%s%s\n", ping, strings.Repeat(" ", wire.MaxLine-len(ping)))
	l.expect("1", true, "")
	go io.WriteString(l.conn, strings.Repeat("a", wire.MaxLine+1))
	l.expect("", false, "longer")
	if _, err := l.in.ReadByte(); err == nil {
		t.Error("a line too long is gone on after")
	}
	dial := dialMetadata(t, New(Options{}))
	var all []*line
	for range maxMetadataConns {
		l := dial()
		io.WriteString(l.conn, ping+"\n")
		l.expect("1", true, "")
		all = append(all, l)
	}
	if _, err := dial().in.ReadByte(); err == nil || isTimeout(err) {
		t.Errorf("one connection too many: %v", err)
	}
	all[0].conn.Close()
	if !until(func() bool {
		l := dial()
		io.WriteString(l.conn, ping+"\n")
		_, err := l.in.ReadByte()
		return err == nil
	}) {
		t.Error("there is no room after one has gone")
	}
}
