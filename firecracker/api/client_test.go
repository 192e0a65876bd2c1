package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// serve answers requests with handler, and counts connections.
func serve(t *testing.T, handler http.HandlerFunc) (*Client, *atomic.Int32) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "api.sock")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	var connections atomic.Int32
	server := &http.Server{Handler: handler, ConnState: func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })
	client := NewUnix(path)
	t.Cleanup(func() { client.Close() })
	return client, &connections
}

// speak answers each connection with raw text, and closes it.
func speak(t *testing.T, text string) *Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "api.sock")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			conn.Read(make([]byte, 4096))
			io.WriteString(conn, text)
			conn.Close()
		}
	}()
	client := NewUnix(path)
	t.Cleanup(func() { client.Close() })
	return client
}

func TestConnectionIsKept(t *testing.T) {
	client, connections := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "GET" && r.ContentLength != 0 {
			t.Errorf("GET has a body of %d bytes", r.ContentLength)
		}
		fmt.Fprint(w, `{"id":"x","state":"Running","vmm_version":"1.12.1","app_name":"Firecracker"}`)
	})
	var calls sync.WaitGroup
	for range 20 {
		calls.Go(func() {
			instance, err := client.GetInstance(t.Context())
			if err != nil || instance.Version != "1.12.1" || instance.State != "Running" {
				t.Errorf("GetInstance = %+v, %v", instance, err)
			}
		})
	}
	calls.Wait()
	if n := connections.Load(); n != 1 {
		t.Errorf("%d connections for 20 calls, want 1", n)
	}
	if err := errors.Join(client.Close(), client.Close()); err != nil {
		t.Error(err)
	}
}

func TestFault(t *testing.T) {
	client, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		var body map[string]string
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Error(err)
		}
		if body["state"] == "Resumed" {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprint(w, `{"fault_message":"not now"}`)
	})
	err := client.PatchVM(t.Context(), VMPaused)
	fault := (*Fault)(nil)
	if !errors.As(err, &fault) || *fault != (Fault{Method: "PATCH", Path: "/vm", Status: 400, Message: "not now"}) {
		t.Errorf("refused call = %v", err)
	}
	if err := client.PatchVM(t.Context(), VMResumed); err != nil { // the connection is as good as before
		t.Errorf("granted call = %v", err)
	}
}

func TestNobodyAnswers(t *testing.T) {
	absent := NewUnix(filepath.Join(t.TempDir(), "none"))
	if _, err := absent.GetInstance(t.Context()); !errors.Is(err, ErrGone) {
		t.Errorf("no socket: %v, want ErrGone", err)
	}
	for name, text := range map[string]string{"nothing": "", "half a head": "HTTP/1.1 200 OK\r\n", "half a body": "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"} {
		if _, err := speak(t, text).GetInstance(t.Context()); !errors.Is(err, ErrGone) {
			t.Errorf("%s: %v, want ErrGone", name, err)
		}
	}
}

func TestBadAnswers(t *testing.T) {
	for name, text := range map[string]string{
		"garbage":       "garbage\r\n\r\n",
		"no JSON":       "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{",
		"a large body":  fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", maxAnswer+1, strings.Repeat(" ", maxAnswer+1)),
		"a large head":  "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", maxHead+maxAnswer+1),
		"a wrong frame": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
	} {
		if _, err := speak(t, text).GetInstance(t.Context()); !errors.Is(err, ErrAnswer) {
			t.Errorf("%s: %.200v, want ErrAnswer", name, err)
		}
	}
	good := speak(t, "HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n{\"id\":\"abc\"}")
	if instance, err := good.GetInstance(t.Context()); err != nil || instance.ID != "abc" {
		t.Errorf("good answer = %+v, %v", instance, err)
	}
}

func TestContextBoundsCall(t *testing.T) {
	release := make(chan struct{})
	client, connections := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "PATCH" {
			select {
			case <-release:
			case <-r.Context().Done():
			}
		}
		fmt.Fprint(w, `{"id":"abc"}`)
	})
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("enough")
	hung := make(chan error, 1)
	go func() { hung <- client.PatchVM(ctx, VMPaused) }()
	for connections.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	waiting, stop := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer stop()
	if _, err := client.GetInstance(waiting); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a call behind one that hangs = %v, want its context's end", err)
	}
	cancel(cause)
	if err := <-hung; !errors.Is(err, cause) {
		t.Errorf("the call that hangs = %v, want %v", err, cause)
	}
	close(release)
	if instance, err := client.GetInstance(t.Context()); err != nil || instance.ID != "abc" { // not the answer to the call before
		t.Errorf("the call after = %+v, %v", instance, err)
	}
}
