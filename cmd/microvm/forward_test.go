//go:build linux

package main

import (
	"bufio"
	"context"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tangle-network/microvm-runtime/guest/guesttest"
)

func TestForwards(t *testing.T) {
	for text, want := range map[string]port{
		"80:8080": {"127.0.0.1:80", "127.0.0.1:8080"}, "0.0.0.0:80:81": {"0.0.0.0:80", "127.0.0.1:81"}, "[::1]:0:81": {"[::1]:0", "127.0.0.1:81"}, "localhost:80:81": {"localhost:80", "127.0.0.1:81"},
	} {
		if got, err := forwards([]string{text}); err != nil || !slices.Equal(got, []port{want}) {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "80", ":80", "80:", "::1:80:80", "a:b:c:80", ":"} {
		if got, err := forwards([]string{text}); err == nil {
			t.Errorf("%s: %v", text, got)
		}
	}
}

// TestForwardEndsWithItsContext forwards two ports, of which one is used, until the context ends.
func TestForwardEndsWithItsContext(t *testing.T) {
	target, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	go func() {
		if conn, err := target.Accept(); err == nil {
			io.WriteString(conn, "hello")
			conn.Close()
		}
	}()
	says := said(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	agent := guesttest.New(t)
	go func() {
		done <- forward(ctx, agent, []port{{"127.0.0.1:0", target.Addr().String()}, {"127.0.0.1:0", "127.0.0.1:1"}})
	}()
	line, err := says.ReadString('\n')
	host, to, _ := strings.Cut(strings.TrimSpace(line), " is ")
	if want := target.Addr().String() + " in the guest"; err != nil || to != want {
		t.Fatalf("it says %q, %v; want that something is %s", line, err, want)
	}
	conn, err := net.Dial("tcp", host)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got, err := io.ReadAll(conn); err != nil || string(got) != "hello" {
		t.Errorf("%q, %v", got, err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := forward(t.Context(), nil, []port{{target.Addr().String(), "127.0.0.1:1"}}); err == nil {
		t.Error("a port in use is forwarded")
	}
}

// said returns what a verb says on standard error from now on.
func said(t *testing.T) *bufio.Reader {
	t.Helper()
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	before := os.Stderr
	os.Stderr = in
	t.Cleanup(func() {
		os.Stderr = before
		in.Close()
		out.Close()
	})
	out.SetReadDeadline(time.Now().Add(20 * time.Second))
	return bufio.NewReader(out)
}
