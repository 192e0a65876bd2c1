//go:build linux

package main

import (
	"context"
	"io"
	"net"
	"os"
	"slices"
	"testing"

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
	free, err := net.Listen("tcp", "127.0.0.1:0") // a port that is free in a moment
	if err != nil {
		t.Fatal(err)
	}
	host := free.Addr().String()
	free.Close()
	silence(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	agent := guesttest.New(t)
	go func() {
		done <- forward(ctx, agent, []port{{host, target.Addr().String()}, {"127.0.0.1:0", "127.0.0.1:1"}})
	}()
	for {
		conn, err := net.Dial("tcp", host)
		if err != nil {
			select {
			case err := <-done:
				t.Fatal(err)
			default:
				continue
			}
		}
		if got, err := io.ReadAll(conn); err != nil || string(got) != "hello" {
			t.Errorf("%q, %v", got, err)
		}
		conn.Close()
		break
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := forward(t.Context(), nil, []port{{target.Addr().String(), "127.0.0.1:1"}}); err == nil {
		t.Error("a port in use is forwarded")
	}
}

// silence keeps what a verb says on standard error out of the test's.
func silence(t *testing.T) {
	t.Helper()
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	before := os.Stderr
	os.Stderr = null
	t.Cleanup(func() {
		os.Stderr = before
		null.Close()
	})
}
