//go:build linux

package agent

import (
	"context"
	"io"
	"net"
	"os"
	"testing"

	"github.com/tangle-network/microvm-runtime/internal/testing/transcript"
)

func (h *host) Dial(ctx context.Context, _ uint32) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "unix", h.path)
}

// TestOldHosts asks this agent what hosts of all recorded versions asked theirs: it means the same by its answers.
func TestOldHosts(t *testing.T) {
	all, err := transcript.All()
	if err != nil || len(all) < 7 {
		t.Fatalf("%d transcripts, %v", len(all), err)
	}
	for _, old := range all {
		t.Run(old.Name, func(t *testing.T) {
			memory, err := os.MkdirTemp("/dev/shm", "microvm-old-")
			if err != nil {
				t.Skipf("the host has no place in memory for secrets: %v", err)
			}
			t.Cleanup(func() { os.RemoveAll(memory) })
			h := newHost(t, Options{Secrets: memory + "/secrets"})
			dir := t.TempDir()
			if err := os.Mkdir(dir+"/src", 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(dir+"/src/f", []byte("content"), 0o644); err != nil {
				t.Fatal(err)
			}
			shared := memory + "/d" // a socket's path is short
			if err := os.Symlink(dir, shared); err != nil {
				t.Fatal(err)
			}
			echo(t, shared+"/echo.sock")
			for _, scene := range old.Scenes {
				if err := (&transcript.Host{Dialer: h, Dir: shared}).Play(t.Context(), scene); err != nil {
					t.Errorf("%s: %v", scene.Name, err)
				}
			}
		})
	}
}

// echo answers with what it is sent, until the test ends.
func echo(t *testing.T, path string) {
	t.Helper()
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
			go func() {
				io.Copy(conn, conn)
				conn.Close()
			}()
		}
	}()
}
