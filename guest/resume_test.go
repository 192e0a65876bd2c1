//go:build linux

package guest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/guest"
	"github.com/tangle-network/microvm-runtime/guest/guesttest"
	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// lossy is a dialer whose connections break after a random number of bytes of either direction. It counts what goes over them.
type lossy struct {
	guest.Dialer
	most int // bytes that a connection lives for; 0 is for ever

	mu     sync.Mutex
	random *rand.Rand
	cuts   atomic.Int64
	bytes  atomic.Int64
}

func newLossy(d guest.Dialer, seed uint64, most int) *lossy {
	return &lossy{Dialer: d, most: most, random: rand.New(rand.NewPCG(seed, 1))}
}

func (l *lossy) Dial(ctx context.Context, port uint32) (net.Conn, error) {
	conn, err := l.Dialer.Dial(ctx, port)
	if err != nil {
		return nil, err
	}
	c := &lossyConn{Conn: conn, lossy: l}
	c.left.Store(1 << 62)
	if l.most > 0 {
		l.mu.Lock()
		defer l.mu.Unlock()
		most := l.most
		if l.random.IntN(4) == 0 {
			most = 2000 // also within a request, an answer, or between them
		}
		c.left.Store(int64(l.random.IntN(most)))
	}
	return c, nil
}

type lossyConn struct {
	net.Conn
	lossy *lossy
	left  atomic.Int64
	once  sync.Once
}

// spend says how much of n may go on, and cuts the connection where that is all.
func (c *lossyConn) spend(n int) int {
	left := c.left.Add(-int64(n))
	if left < 0 {
		n = max(0, n+int(left))
		c.once.Do(func() { c.lossy.cuts.Add(1) })
	}
	c.lossy.bytes.Add(int64(n))
	return n
}

func (c *lossyConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if fits := c.spend(n); fits < n {
		c.Conn.Close()
		return fits, syscall.ECONNRESET
	}
	return n, err
}

func (c *lossyConn) Write(p []byte) (int, error) {
	fits := c.spend(len(p))
	n, err := c.Conn.Write(p[:fits])
	if err == nil && fits < len(p) {
		c.Conn.Close()
		err = syscall.ECONNRESET
	}
	return n, err
}

type copyVerb func(context.Context, guest.Dialer, string, string, *guest.CopyOptions) error

var bothWays = map[string]copyVerb{"to": guest.CopyTo, "from": guest.CopyFrom}

// size is how many bytes the files of a tree have.
func size(t *testing.T, dir string) (bytes int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() {
			info, err := entry.Info()
			if err != nil {
				return err
			}
			bytes += info.Size()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return bytes
}

// TestCopiesGoOn cuts connections at random: the trees are equal, and little more than was cut while it was under way is sent twice.
func TestCopiesGoOn(t *testing.T) {
	const underWay = 1 << 20 // sockets' buffers, a frame, a file's header
	from := t.TempDir() + "/from"
	plant(t, from)
	want := survey(t, from, fs.ModeSetuid)
	for name, verb := range bothWays {
		for seed := range uint64(4) {
			t.Run(fmt.Sprint(name, " ", seed), func(t *testing.T) {
				d, dst := newLossy(guesttest.New(t), seed, 4<<20), t.TempDir()+"/x"
				t.Cleanup(func() { os.Chmod(dst+"/closed", 0o700) })
				if err := verb(t.Context(), d, from, dst, nil); err != nil {
					t.Fatal(err)
				}
				expectEqual(t, survey(t, dst, 0), want)
				if cuts, sent, most := d.cuts.Load(), d.bytes.Load(), size(t, from)+(1+d.cuts.Load())*underWay; cuts == 0 || sent > most {
					t.Errorf("%d cuts, %d bytes were sent, want at most %d", cuts, sent, most)
				}
			})
		}
	}
}

// TestManySmallFilesGoOn has each file in several parts, and many complete ones behind it.
func TestManySmallFilesGoOn(t *testing.T) {
	from := t.TempDir()
	for i := range 200 {
		name := fmt.Sprintf("%s/%d/%d", from, i%7, i)
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(strings.Repeat(fmt.Sprint(i), i*10)), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	for name, verb := range bothWays {
		d, dst := newLossy(guesttest.New(t), 9, 100_000), t.TempDir()+"/x"
		if err := verb(t.Context(), d, from, dst, nil); err != nil {
			t.Fatal(name, err)
		}
		expectEqual(t, survey(t, dst, 0), survey(t, from, 0))
		if d.cuts.Load() < 5 {
			t.Errorf("%s: %d cuts", name, d.cuts.Load())
		}
	}
}

func TestOneFileGoesOn(t *testing.T) {
	src := t.TempDir() + "/f"
	if err := os.WriteFile(src, []byte(strings.Repeat("0123456789", 500_000)), 0o640); err != nil {
		t.Fatal(err)
	}
	for name, verb := range bothWays {
		d, dst := newLossy(guesttest.New(t), 3, 1<<20), t.TempDir()+"/f"
		if err := verb(t.Context(), d, src, dst, nil); err != nil {
			t.Fatal(name, err)
		}
		expectEqual(t, survey(t, dst, 0), survey(t, src, 0))
		if cuts, sent := d.cuts.Load(), d.bytes.Load(); cuts == 0 || sent > 5_000_000+(cuts+1)<<20 {
			t.Errorf("%s: %d cuts, %d bytes", name, cuts, sent)
		}
	}
	a := guesttest.New(t)
	text, err := guest.ReadFile(t.Context(), newLossy(a, 4, 8<<20), src)
	if err != nil || len(text) != 5_000_000 {
		t.Errorf("%d bytes, %v", len(text), err)
	}
	if err := guest.WriteFile(t.Context(), newLossy(a, 5, 8<<20), src+"2", text, 0o600); err != nil {
		t.Error(err)
	}
	if again, err := os.ReadFile(src + "2"); err != nil || string(again) != string(text) {
		t.Errorf("%d bytes, %v", len(again), err)
	}
}

// ending ends a context when so many bytes have gone over its connections.
type ending struct {
	*lossy
	after  int64
	cancel context.CancelFunc
}

func (e *ending) Dial(ctx context.Context, port uint32) (net.Conn, error) {
	conn, err := e.lossy.Dial(ctx, port)
	return &endingConn{conn, e}, err
}

type endingConn struct {
	net.Conn
	ending *ending
}

func (c *endingConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if c.ending.bytes.Load() > c.ending.after {
		c.ending.cancel()
	}
	return n, err
}

func (c *endingConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.ending.bytes.Load() > c.ending.after {
		c.ending.cancel()
	}
	return n, err
}

// TestACopyIsResumed ends a copy by its context, which leaves whole files alone, and goes on: what is there is not sent again, but for what changed since.
func TestACopyIsResumed(t *testing.T) {
	from := t.TempDir() + "/from"
	for i := range 40 {
		if err := errors.Join(os.MkdirAll(from+"/closed", 0o755), os.WriteFile(fmt.Sprintf("%s/%02d", from, i), make([]byte, 250_000), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Symlink("00", from+"/00link"), os.Link(from+"/00", from+"/99"), os.Chmod(from+"/closed", 0o500)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Chmod(from+"/closed", 0o700) })
	for name, verb := range bothWays {
		a, dst := guesttest.New(t), t.TempDir()+"/x"
		t.Cleanup(func() { os.Chmod(dst+"/closed", 0o700) })
		ctx, cancel := context.WithCancel(t.Context())
		err := verb(ctx, &ending{newLossy(a, 0, 0), 6_000_000, cancel}, from, dst, nil)
		failed := (*guest.CopyError)(nil)
		if !errors.Is(err, context.Canceled) || !errors.As(err, &failed) || failed.Files < 15 || failed.Files > 40 || failed.File == "" {
			t.Fatalf("%s: %v", name, err)
		}
		expectNoPart(t, dst)
		d := newLossy(a, 0, 0)
		if err := verb(t.Context(), d, from, dst, &guest.CopyOptions{Exact: true, Resume: true}); err != nil {
			t.Fatalf("%s, resumed: %v", name, err)
		}
		expectEqual(t, survey(t, dst, 0), survey(t, from, 0))
		if sent := d.bytes.Load(); sent < 3_000_000 || sent > 6_500_000 {
			t.Errorf("%s: %d bytes were sent after the resumption", name, sent)
		}
		if err := os.WriteFile(from+"/30", []byte("changed "+name), 0o600); err != nil {
			t.Fatal(err)
		}
		d = newLossy(a, 5, 1_000_000)
		if err := verb(t.Context(), d, from, dst, &guest.CopyOptions{Exact: true, Resume: true}); err != nil {
			t.Fatalf("%s, resumed again: %v", name, err)
		}
		expectEqual(t, survey(t, dst, 0), survey(t, from, 0))
		if sent := d.bytes.Load(); sent < 2_000_000 || sent > 2_600_000+(1+d.cuts.Load())<<20 {
			t.Errorf("%s: %d bytes were sent after a change", name, sent)
		}
	}
}

// expectNoPart waits until nothing is in a directory that is there in part.
func expectNoPart(t *testing.T, dir string) {
	t.Helper()
	for begin := time.Now(); ; time.Sleep(time.Millisecond) {
		left, err := filepath.Glob(dir + "/.copy-*")
		if err == nil && len(left) == 0 {
			return
		}
		if time.Since(begin) > 20*time.Second {
			t.Fatalf("left behind: %v, %v", left, err)
		}
	}
}

// TestLiesAboutWhereACopyIs: what an agent says of how far it came is its own harm alone.
func TestLiesAboutWhereACopyIs(t *testing.T) {
	src := t.TempDir()
	if err := os.WriteFile(src+"/f", []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	done := string(wire.Append(nil, wire.Copied, []byte("{}")))
	at := func(text string) string { return string(wire.Append(nil, wire.At, []byte(text))) }
	for name, c := range map[string]struct {
		says string
		want error
	}{
		"the truth":             {at("{}") + done, nil},
		"it has ended":          {done, nil},
		"it has ended badly":    {string(wire.Append(nil, wire.Copied, []byte(`{"error":{"code":"full","error":"no room"}}`))), syscall.ENOSPC},
		"a negative offset":     {at(`{"file":"Zg==","offset":-1,"size":7}`) + done, nil},
		"an offset far beyond":  {at(`{"file":"Zg==","offset":9223372036854775807,"size":7}`) + done, nil},
		"a name that leads out": {at(`{"after":"Li4vLi4=","file":"Li4=","offset":1}`) + done, nil},
		"a name that is long":   {at(`{"after":"`+strings.Repeat("QUFB", 2000)+`"}`) + done, guest.ErrAgent},
		"a name that is none":   {at(`{"after":"%"}`) + done, guest.ErrAgent},
		"no JSON":               {at("{") + done, guest.ErrAgent},
		"another frame":         {string(wire.Append(nil, wire.Data, nil)), guest.ErrAgent},
		"no frame":              {"\xff\xff\xff\xff\xff", guest.ErrAgent},
	} {
		t.Run(name, func(t *testing.T) {
			liar := scripted(func(conn net.Conn, request *http.Request) {
				defer conn.Close()
				switch request.URL.Path {
				case wire.PathHealth:
					io.WriteString(conn, answer(http.StatusOK, `{"protocol":1,"features":["copy","resume"]}`))
				case wire.PathFilesWrite:
					io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+wire.Upgrade+"\r\n\r\n"+c.says)
				default:
					io.WriteString(conn, answer(http.StatusOK, `{}`))
				}
			})
			err := within(t, func() error { return guest.CopyTo(t.Context(), liar, src, "/x", nil) })
			if c.want == nil && err != nil || !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
		})
	}
}

// TestACopyThatTheAgentHasGivenUp ends, and is not begun again behind the caller's back.
func TestACopyThatTheAgentHasGivenUp(t *testing.T) {
	var asked atomic.Int64
	forgetful := scripted(func(conn net.Conn, request *http.Request) {
		defer conn.Close()
		switch {
		case request.URL.Path == wire.PathHealth:
			io.WriteString(conn, answer(http.StatusOK, `{"protocol":1,"features":["copy","resume"]}`))
		case request.URL.Path == wire.PathFilesWrite && asked.Add(1) == 1:
			io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+wire.Upgrade+"\r\n\r\n"+string(wire.Append(nil, wire.At, []byte("{}"))))
		default:
			io.WriteString(conn, answer(http.StatusNotFound, `{"code":"not_found","error":"copy is not known"}`))
		}
	})
	err := within(t, func() error { return guest.CopyTo(t.Context(), forgetful, "/etc/passwd", "/x", nil) })
	if failed := (*guest.CopyError)(nil); !errors.Is(err, guest.ErrBroken) || !errors.As(err, &failed) || asked.Load() != 2 {
		t.Errorf("asked %d times, %v", asked.Load(), err)
	}
	if errors.Is(err, microvm.ErrNotFound) {
		t.Error("a machine's error is told of a copy")
	}
}
