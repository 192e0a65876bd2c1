package wire

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
)

// TestFilesAreSentAsTheyAre sends a file through a socket, within the kernel, and to what is no socket, and one that has become shorter.
func TestFilesAreSentAsTheyAre(t *testing.T) {
	content := bytes.Repeat([]byte("content\n"), (3*MaxPayload+16)/8)
	for name, c := range map[string]struct {
		has, asked int
		want       error
	}{
		"all":     {len(content), len(content), nil},
		"a part":  {len(content), MaxPayload + 1, nil},
		"nothing": {0, 0, nil},
		"shorter": {MaxPayload + 7, len(content), io.ErrUnexpectedEOF},
		"empty":   {0, 1, io.ErrUnexpectedEOF},
	} {
		for where, send := range map[string]func(*testing.T, func(io.Writer)) io.Reader{"socket": throughSocket, "buffer": throughBuffer} {
			t.Run(name+" "+where, func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "file")
				if err := os.WriteFile(path, content[:c.has], 0o600); err != nil {
					t.Fatal(err)
				}
				f, err := os.Open(path)
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				r := send(t, func(w io.Writer) {
					d := NewDataWriter(w)
					sent, err := d.SendFile(f, int64(c.asked))
					if sent != int64(min(c.has, c.asked)) || !errors.Is(err, c.want) {
						t.Errorf("%d bytes were sent, %v", sent, err)
					}
					d.End(Copied, nil) // what follows is told from it in any case
				})
				got, err := io.ReadAll(NewDataReader(r, Copied))
				if err != nil || !bytes.HasPrefix(got, content[:min(c.has, c.asked)]) || c.want == nil && len(got) != c.asked {
					t.Errorf("%d bytes came, %v", len(got), err)
				}
			})
		}
	}
}

func throughBuffer(_ *testing.T, send func(io.Writer)) io.Reader {
	var b bytes.Buffer
	send(&b)
	return &b
}

func throughSocket(t *testing.T, send func(io.Writer)) io.Reader {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer accepted.Close()
		send(accepted)
	}()
	return conn
}

// TestASendEndsWithItsConnection ends the connection while a file is sent.
func TestASendEndsWithItsConnection(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, make([]byte, 8<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	done := make(chan error, 1)
	r := throughSocket(t, func(w io.Writer) {
		d := NewDataWriter(w)
		_, err := d.SendFile(f, 8<<20)
		done <- errors.Join(err, d.Err())
	})
	r.(net.Conn).Close()
	if err := <-done; err == nil {
		t.Error("it was sent to nobody")
	}
}
