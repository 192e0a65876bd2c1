//go:build linux

package guest_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/guest"
	"github.com/tangle-network/microvm-runtime/guest/guesttest"
	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// plant makes a tree with everything that a copy keeps, of some 20 MiB.
func plant(t *testing.T, dir string) {
	t.Helper()
	random := rand.NewChaCha8([32]byte{1})
	at := func(name string) string { return filepath.Join(dir, name) }
	var errs []error
	for _, name := range []string{"", "empty dir", "ümläut/日本", "new\nline", "closed"} {
		errs = append(errs, os.MkdirAll(at(name), 0o755))
	}
	for name, size := range map[string]int64{
		"empty": 0, "one": 1, "block": 512, "odd": 70_001, "with space": 3, "ümläut/日本/語": 10, "new\nline/a\tb\\": 10, "\xff\xfe no UTF-8": 4, "-rf": 5, "large": 20 << 20, "closed/in": 7,
		strings.Repeat("n", 255): 9,
	} {
		f, err := os.Create(at(name))
		if err == nil {
			_, err = io.CopyN(f, random, size)
			f.Close()
		}
		errs = append(errs, err)
	}
	errs = append(errs, os.Symlink("one", at("relative link")), os.Symlink("/nowhere/at all", at("broken link")), os.Symlink("..", at("link up")),
		os.Link(at("odd"), at("ümläut/hard link")), os.Chmod(at("one"), 0o600), os.Chmod(at("block"), 0o4755), os.Chmod(at("odd"), 0o444),
		syscall.Setxattr(at("one"), "user.note", []byte("kept\x00so"), 0),
		os.Chtimes(at("empty"), time.Time{}, time.Unix(1, 123456789)), os.Chtimes(at("one"), time.Time{}, time.Unix(-1000, 0)),
		os.Chmod(at("closed"), 0o500), os.Chmod(at("empty dir"), 0o1777), os.Chtimes(at("closed"), time.Time{}, time.Unix(1e9, 0)), os.Chtimes(at("ümläut"), time.Time{}, time.Unix(1e9+1, 0)))
	t.Cleanup(func() { os.Chmod(at("closed"), 0o700) })
	if err := errors.Join(errs...); err != nil && !errors.Is(err, syscall.ENOTSUP) {
		t.Fatal(err)
	}
}

// survey tells all that is in a tree, a line a file.
func survey(t *testing.T, dir string, mask fs.FileMode) (all []string) {
	t.Helper()
	first := map[uint64]string{}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		stat := info.Sys().(*syscall.Stat_t)
		link, _ := os.Readlink(path)
		line := fmt.Sprintf("%q %v %q %d:%d", name, info.Mode()&^mask, link, stat.Uid, stat.Gid)
		if info.Mode()&fs.ModeSymlink == 0 {
			line += " " + info.ModTime().UTC().String()
		}
		if info.Mode().IsRegular() {
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			value := make([]byte, 100)
			n, _ := syscall.Getxattr(path, "user.note", value)
			if stat.Nlink > 1 && first[stat.Ino] == "" {
				first[stat.Ino] = name
			}
			line += fmt.Sprintf(" %x %d %q %q", sha256.Sum256(text), len(text), value[:max(n, 0)], first[stat.Ino])
		}
		all = append(all, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func expectEqual(t *testing.T, got, want []string) {
	t.Helper()
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) || got[i] != want[i] {
			t.Errorf("line %d of %d and %d differs:\n%q\n%q", i, len(got), len(want), got[min(i, len(got)-1)], want[min(i, len(want)-1)])
			return
		}
	}
}

func TestTreesAreEqual(t *testing.T) {
	a := guesttest.New(t)
	from, there, back := t.TempDir()+"/from", t.TempDir()+"/there", t.TempDir()+"/back"
	plant(t, from)
	t.Cleanup(func() { os.Chmod(there+"/closed", 0o700); os.Chmod(back+"/closed", 0o700) })
	for _, o := range []*guest.CopyOptions{nil, {Exact: true, Setuid: true, Owners: os.Getuid() == 0}} { // once again, over what is there
		if err := errors.Join(guest.CopyTo(t.Context(), a, from, there, o), guest.CopyFrom(t.Context(), a, there, back, o)); err != nil {
			t.Fatal(err)
		}
		mask := fs.ModeSetuid
		if o != nil {
			mask = 0
		}
		want := survey(t, from, mask)
		if len(want) != 22 {
			t.Errorf("%d files", len(want))
		}
		expectEqual(t, survey(t, there, 0), want)
		expectEqual(t, survey(t, back, 0), want)
	}
}

func TestDestinations(t *testing.T) {
	a := guesttest.New(t)
	dir := t.TempDir()
	at := func(name string) string { return dir + "/" + name }
	if err := errors.Join(os.Mkdir(at("src"), 0o755), os.WriteFile(at("src/f"), []byte("f"), 0o600), os.Symlink("src", at("link")), os.Mkdir(at("d"), 0o711), os.Mkdir(at("e"), 0o711)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ from, to, want string }{
		{"src", "new", "new/f"}, {"src", "d", "d/src/f"}, {"src/.", "d", "d/f"}, {"link/", "d", "d/link/f"}, {"link/.", "e", "e/f"}, {"link", "e", "e/link"},
		{"src/f", "d/g", "d/g"}, {"src/f", "e/", "e/f"}, {"src/../src/f", "e/h", "e/h"},
	} {
		for verb, f := range map[string]func(context.Context, guest.Dialer, string, string, *guest.CopyOptions) error{"to": guest.CopyTo, "from": guest.CopyFrom} {
			if err := f(t.Context(), a, at(c.from), at(c.to), nil); err != nil {
				t.Errorf("copy %s %s to %s: %v", verb, c.from, c.to, err)
			}
			if _, err := os.Lstat(at(c.want)); err != nil {
				t.Errorf("copy %s %s to %s: %v", verb, c.from, c.to, err)
			}
			if c.want != "e/f" {
				os.RemoveAll(at(c.want))
			}
			if c.to == "new" {
				os.RemoveAll(at("new"))
			}
		}
	}
	if info, err := os.Stat(at("d")); err != nil || info.Mode().Perm() != 0o711 {
		t.Errorf("the caller's directory is %v, %v", info, err)
	}
}

func TestCopyErrors(t *testing.T) {
	a := guesttest.New(t)
	dir := t.TempDir()
	if err := errors.Join(os.WriteFile(dir+"/f", []byte("f"), 0o600), os.Mkdir(dir+"/pipes", 0o700), os.Mkdir(dir+"/d", 0o700), syscall.Mkfifo(dir+"/pipes/p", 0o600)); err != nil {
		t.Fatal(err)
	}
	to, from := guest.CopyTo, guest.CopyFrom
	for name, c := range map[string]struct {
		verb     func(context.Context, guest.Dialer, string, string, *guest.CopyOptions) error
		from, to string
		want     error
	}{
		"good to": {to, dir + "/f", dir + "/g", nil}, "good from": {from, dir + "/f", dir + "/h", nil},
		"a source that is not there":              {to, dir + "/none", dir + "/g", fs.ErrNotExist},
		"a source that is not in the guest":       {from, dir + "/none", dir + "/g", guest.ErrNotFound},
		"a directory that is not in the guest":    {to, dir + "/f", dir + "/none/g", guest.ErrNotFound},
		"a directory that is not there":           {from, dir + "/f", dir + "/none/g", fs.ErrNotExist},
		"a file with a slash":                     {from, dir + "/f/", dir + "/i", microvm.ErrInvalid},
		"a directory over a file in the guest":    {to, dir + "/d", dir + "/f", microvm.ErrInvalid},
		"a directory over a file":                 {from, dir + "/d", dir + "/f", syscall.ENOTDIR},
		"a pipe":                                  {to, dir + "/pipes", dir + "/new", guest.ErrUnsafe},
		"a pipe in the guest":                     {from, dir + "/pipes", dir + "/new2", microvm.ErrInvalid},
		"no host path":                            {to, "", dir, microvm.ErrInvalid},
		"no guest path":                           {to, dir, "", microvm.ErrInvalid},
		"a guest path that JSON would change":     {to, dir + "/f", dir + "/\xff", microvm.ErrInvalid},
		"a file system that takes nothing":        {to, dir + "/f", "/proc/f", guest.ErrNotFound},
		"a guest path with a NUL":                 {from, dir + "\x00", dir, microvm.ErrInvalid},
		"a part of a name that is too long there": {to, dir + "/f", dir + "/" + strings.Repeat("n", 300), microvm.ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			err := within(t, func() error { return c.verb(t.Context(), a, c.from, c.to, nil) })
			if c.want == nil && err != nil || !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
			if err != nil && strings.ContainsAny(err.Error(), "\x00\n") {
				t.Errorf("%q", err)
			}
		})
	}
}

func TestCopyBounds(t *testing.T) {
	a := guesttest.New(t)
	dir := t.TempDir()
	if err := errors.Join(os.Mkdir(dir+"/src", 0o700), os.WriteFile(dir+"/src/f", make([]byte, 100_000), 0o600)); err != nil {
		t.Fatal(err)
	}
	for i, c := range []struct {
		o    guest.CopyOptions
		want error
	}{
		{guest.CopyOptions{MaxBytes: 110_000, MaxFiles: 2}, nil}, {guest.CopyOptions{MaxBytes: 99_999}, guest.ErrTooMuch}, {guest.CopyOptions{MaxFiles: 1}, guest.ErrTooMuch},
		{guest.CopyOptions{MaxBytes: -1}, microvm.ErrInvalid},
	} {
		err := guest.CopyFrom(t.Context(), a, dir+"/src", fmt.Sprint(dir, "/", i), &c.o)
		if c.want == nil && err != nil || !errors.Is(err, c.want) {
			t.Errorf("%+v: %v", c.o, err)
		}
	}
}

// An unreadable source is named. Root may read everything, so it is a file that is only for writing.
func TestAnUnreadableSource(t *testing.T) {
	a := guesttest.New(t)
	const unreadable = "/sys/bus/platform/drivers_probe"
	dir := t.TempDir()
	errTo, errFrom := guest.CopyTo(t.Context(), a, unreadable, dir+"/to", nil), guest.CopyFrom(t.Context(), a, unreadable, dir+"/from", nil)
	for name, err := range map[string]error{"to": errTo, "from": errFrom} {
		if failed := (*guest.CopyError)(nil); !errors.As(err, &failed) || !strings.Contains(err.Error(), "drivers_probe") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := guest.ReadFile(t.Context(), a, unreadable); err == nil || !strings.Contains(err.Error(), "drivers_probe") {
		t.Errorf("%v", err)
	}
	for begin := time.Now(); ; time.Sleep(time.Millisecond) { // the agent notices a little later
		if entries, err := os.ReadDir(dir); err == nil && len(entries) == 0 {
			return
		} else if time.Since(begin) > 20*time.Second {
			t.Fatalf("left behind: %v, %v", entries, err)
		}
	}
}

func TestHostFullTarget(t *testing.T) {
	ring.Host(t)
	a := guesttest.New(t)
	full, src := t.TempDir(), t.TempDir()
	if err := syscall.Mount("none", full, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	defer syscall.Unmount(full, 0)
	if err := errors.Join(os.WriteFile(src+"/a", make([]byte, 1000), 0o600), os.WriteFile(src+"/big", make([]byte, 8<<20), 0o600)); err != nil {
		t.Fatal(err)
	}
	for name, verb := range map[string]func(context.Context, guest.Dialer, string, string, *guest.CopyOptions) error{"to": guest.CopyTo, "from": guest.CopyFrom} {
		err := within(t, func() error { return verb(t.Context(), a, src, full+"/x", nil) })
		failed := (*guest.CopyError)(nil)
		if !errors.Is(err, syscall.ENOSPC) || !errors.As(err, &failed) || failed.File != "big" || failed.Files != 2 {
			t.Errorf("%s: %v", name, err)
		}
		if entries, err := os.ReadDir(full + "/x"); err != nil || len(entries) != 1 || entries[0].Name() != "a" {
			t.Errorf("%s: %v, %v", name, entries, err)
		}
		if err := verb(t.Context(), a, src+"/a", full+"/b", nil); err != nil {
			t.Errorf("%s: a small one: %v", name, err)
		}
		os.RemoveAll(full + "/x")
	}
	err := within(t, func() error {
		return guest.WriteTar(t.Context(), a, full, io.MultiReader(bytes.NewReader(header(t, "huge", 1<<40)), zeros{}), nil)
	})
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "huge") {
		t.Error(err)
	}
	if err := guest.WriteFile(t.Context(), a, full+"/c", make([]byte, 4<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Error(err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// header is the beginning of a tar.
func header(t *testing.T, name string, size int64) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := tar.NewWriter(&b).WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o600, Size: size}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func directory(t *testing.T, name string) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := tar.NewWriter(&b).WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o700}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// cutting is a dialer whose connections for frames break after so many bytes, of either direction.
type cutting struct {
	guest.Dialer
	after int
}

func (c cutting) Dial(ctx context.Context, port uint32) (net.Conn, error) {
	conn, err := c.Dialer.Dial(ctx, port)
	if err != nil {
		return nil, err
	}
	return &cut{conn, c.after, c.after}, nil
}

type cut struct {
	net.Conn
	in, out int
}

func (c *cut) Read(p []byte) (int, error) {
	if c.in <= 0 {
		c.Conn.Close()
		return 0, syscall.ECONNRESET
	}
	n, err := c.Conn.Read(p)
	c.in -= n
	return n, err
}

func (c *cut) Write(p []byte) (int, error) {
	if c.out <= 0 {
		c.Conn.Close()
		return 0, syscall.ECONNRESET
	}
	n, err := c.Conn.Write(p)
	c.out -= n
	return n, err
}

// aged hides features of an agent.
type aged struct {
	guest.Dialer
	features string
}

func (o aged) Dial(ctx context.Context, port uint32) (net.Conn, error) {
	conn, err := o.Dialer.Dial(ctx, port)
	if err != nil {
		return nil, err
	}
	return &agedConn{Conn: conn, features: o.features}, nil
}

// agedConn answers to health itself.
type agedConn struct {
	net.Conn
	features string
	answer   *strings.Reader
}

func (c *agedConn) Write(p []byte) (int, error) {
	if bytes.HasPrefix(p, []byte("GET "+wire.PathHealth)) {
		c.answer = strings.NewReader(answer(http.StatusOK, `{"protocol":1,"features":[`+c.features+`]}`))
		return len(p), nil
	}
	return c.Conn.Write(p)
}

func (c *agedConn) Read(p []byte) (int, error) {
	if c.answer != nil {
		return c.answer.Read(p)
	}
	return c.Conn.Read(p)
}

// TestACutConnectionToAnOlderAgent: a copy does not go on, and says how far it came.
func TestACutConnectionToAnOlderAgent(t *testing.T) {
	a := aged{guesttest.New(t), `"copy"`}
	src := t.TempDir()
	if err := errors.Join(os.WriteFile(src+"/a", make([]byte, 1000), 0o600), os.WriteFile(src+"/b", make([]byte, 8<<20), 0o600)); err != nil {
		t.Fatal(err)
	}
	want := survey(t, src, 0)
	for name, verb := range map[string]func(context.Context, guest.Dialer, string, string, *guest.CopyOptions) error{"to": guest.CopyTo, "from": guest.CopyFrom} {
		dst := t.TempDir() + "/x"
		err := within(t, func() error { return verb(t.Context(), cutting{a, 1 << 20}, src, dst, &guest.CopyOptions{Exact: true}) })
		failed := (*guest.CopyError)(nil)
		if !errors.Is(err, guest.ErrBroken) || !errors.As(err, &failed) || failed.Files != 2 || failed.File != "b" || failed.Bytes < 1000 || failed.Bytes > 4<<20 {
			t.Fatalf("%s: %v", name, err)
		}
		expectOnly(t, dst, "a")
		if err := verb(t.Context(), a, src, dst, &guest.CopyOptions{Exact: true}); err != nil {
			t.Errorf("%s again: %v", name, err)
		}
		expectEqual(t, survey(t, dst, 0), want)
		if err := verb(t.Context(), a, src, dst, &guest.CopyOptions{Exact: true, Resume: true}); !errors.Is(err, microvm.ErrUnsupported) {
			t.Errorf("%s, resumed: %v", name, err)
		}
	}
}

// expectOnly waits until only that is in a directory: the agent notices an end a little later.
func expectOnly(t *testing.T, dir string, want ...string) {
	t.Helper()
	for begin := time.Now(); ; time.Sleep(time.Millisecond) {
		entries, err := os.ReadDir(dir)
		var names []string
		for _, entry := range entries {
			names = append(names, entry.Name())
		}
		if err == nil && slices.Equal(names, want) {
			return
		}
		if time.Since(begin) > 20*time.Second {
			t.Fatalf("what is there is %q, %v, want %q", names, err, want)
		}
	}
}

func TestContextEndsACopy(t *testing.T) {
	a := guesttest.New(t)
	reader, writer := io.Pipe()
	defer writer.Close()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		writer.Write(header(t, "f", 1<<30))
		cancel()
	}()
	dir := t.TempDir()
	if err := within(t, func() error { return guest.WriteTar(ctx, a, dir, reader, nil) }); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	if err := os.WriteFile(dir+"/large", make([]byte, 32<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := guest.ReadTar(ctx, a, dir)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cancel()
	if err := within(t, func() error { _, err := io.Copy(io.Discard, r); return err }); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestTars(t *testing.T) {
	a := guesttest.New(t)
	from, to := t.TempDir()+"/from", t.TempDir()
	plant(t, from)
	t.Cleanup(func() { os.Chmod(to+"/from/closed", 0o700); os.Chmod(to+"/closed", 0o700) })
	for path, at := range map[string]string{from: to + "/from", from + "/.": to} {
		r, err := guest.ReadTar(t.Context(), a, path)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(guest.WriteTar(t.Context(), a, to, r, nil), r.Close()); err != nil {
			t.Fatal(err)
		}
		expectEqual(t, survey(t, at, 0), survey(t, from, fs.ModeSetuid))
		os.Chmod(to+"/from/closed", 0o700)
		os.RemoveAll(to + "/from")
	}
	hostile := bytes.NewReader(append(header(t, "../f", 0), make([]byte, 1024)...))
	if err := guest.WriteTar(t.Context(), a, to, hostile, nil); !errors.Is(err, microvm.ErrInvalid) || !strings.Contains(err.Error(), "leads out") {
		t.Error(err)
	}
	if err := guest.WriteTar(t.Context(), a, to, io.MultiReader(bytes.NewReader(header(t, "f", 10)), failing{}), nil); !errors.Is(err, errSource) {
		t.Error(err)
	}
	if err := guest.WriteTar(t.Context(), a, to+"/none", strings.NewReader(""), nil); !errors.Is(err, guest.ErrNotFound) {
		t.Error(err)
	}
	if _, err := guest.ReadTar(t.Context(), a, to+"/none"); !errors.Is(err, guest.ErrNotFound) {
		t.Error(err)
	}
}

var errSource = errors.New("the source fails")

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errSource }

func TestFiles(t *testing.T) {
	a := guesttest.New(t)
	dir := t.TempDir()
	for _, content := range []string{"", "text", strings.Repeat("large", 1<<20)} {
		if err := guest.WriteFile(t.Context(), a, dir+"/f", []byte(content), 0o4751); err != nil {
			t.Fatal(err)
		}
		if text, err := guest.ReadFile(t.Context(), a, dir+"/f"); err != nil || string(text) != content {
			t.Errorf("%d bytes, want %d: %v", len(text), len(content), err)
		}
		info, err := guest.Stat(t.Context(), a, dir+"/f")
		if err != nil || info.Size != int64(len(content)) || info.Mode != 0o751 || info.Name != "f" || info.UID != uint32(os.Getuid()) || time.Since(info.ModTime).Abs() > time.Minute {
			t.Errorf("%+v, %v", info, err)
		}
	}
	if text, err := guest.ReadFile(t.Context(), a, "/proc/self/status"); err != nil || len(text) == 0 {
		t.Errorf("%q, %v", text, err)
	}
	if err := errors.Join(os.Symlink("f", dir+"/l"), syscall.Mkfifo(dir+"/p", 0o600)); err != nil {
		t.Fatal(err)
	}
	if info, err := guest.Lstat(t.Context(), a, dir+"/l"); err != nil || info.Link != "f" || info.Mode&fs.ModeSymlink == 0 {
		t.Errorf("%+v, %v", info, err)
	}
	if info, err := guest.Stat(t.Context(), a, dir+"/l"); err != nil || info.Link != "" || !info.Mode.IsRegular() {
		t.Errorf("%+v, %v", info, err)
	}
	for path, want := range map[string]error{dir: microvm.ErrInvalid, dir + "/p": microvm.ErrInvalid, dir + "/none": guest.ErrNotFound} {
		if _, err := guest.ReadFile(t.Context(), a, path); !errors.Is(err, want) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if _, err := guest.Stat(t.Context(), a, dir+"/none"); !errors.Is(err, guest.ErrNotFound) {
		t.Error(err)
	}
	if err := guest.WriteFile(t.Context(), a, dir+"/none/f", nil, 0o600); !errors.Is(err, guest.ErrNotFound) {
		t.Error(err)
	}
}

func TestAnOldAgentCopiesNothing(t *testing.T) {
	asked := make(chan string, 10)
	old := scripted(func(conn net.Conn, request *http.Request) {
		asked <- request.URL.Path
		const health = `{"protocol":1,"features":["attach"]}`
		fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(health), health)
	})
	_, errTar := guest.ReadTar(t.Context(), old, "/f")
	_, errRead := guest.ReadFile(t.Context(), old, "/f")
	_, errStat := guest.Stat(t.Context(), old, "/f")
	all := []error{
		guest.CopyTo(t.Context(), old, "/etc/passwd", "/f", nil), guest.CopyFrom(t.Context(), old, "/f", t.TempDir(), nil), guest.WriteTar(t.Context(), old, "/", failing{}, nil),
		guest.WriteFile(t.Context(), old, "/f", nil, 0), errTar, errRead, errStat,
	}
	for i, err := range all {
		if !errors.Is(err, microvm.ErrUnsupported) {
			t.Errorf("%d: %v", i, err)
		}
		if path := <-asked; path != wire.PathHealth {
			t.Errorf("%d: it was asked for %s", i, path)
		}
	}
}

func TestCopiesFromALyingAgent(t *testing.T) {
	upgraded := "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + wire.Upgrade + "\r\n\r\n"
	good := string(append(header(t, "f", 0), make([]byte, 1024)...))
	data := func(text string) string {
		var b []byte
		for part := range slices.Chunk([]byte(text), wire.MaxPayload) {
			b = wire.Append(b, wire.Data, part)
		}
		return string(b)
	}
	done := string(wire.Append(nil, wire.Copied, []byte("{}")))
	for name, c := range map[string]struct {
		says string
		want error
	}{
		"the truth":                 {upgraded + data(good) + done, nil},
		"no end":                    {upgraded + data(good), guest.ErrBroken},
		"an end before the tar's":   {upgraded + data(good[:512]) + string(wire.Append(nil, wire.Copied, []byte(`{"error": {"code": "denied", "error": "no\u001b[2J"}}`))), guest.ErrDenied},
		"an end that is none":       {upgraded + data(good) + string(wire.Append(nil, wire.Copied, []byte("{"))), guest.ErrAgent},
		"another frame":             {upgraded + string(wire.Append(nil, wire.Stdout, []byte("out"))), guest.ErrAgent},
		"no frame":                  {upgraded + "\xff\xff\xff\xff\xff\xff", guest.ErrAgent},
		"much behind the end":       {upgraded + data(good+strings.Repeat("\x00", 2<<20)) + done, guest.ErrAgent},
		"a name that leads out":     {upgraded + data(string(directory(t, "x/"))+string(header(t, "../f", 0))+strings.Repeat("\x00", 1024)) + done, guest.ErrUnsafe},
		"nothing at all":            {upgraded + done, guest.ErrUnsafe},
		"no upgrade, but a success": {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", guest.ErrAgent},
	} {
		t.Run(name, func(t *testing.T) {
			liar := scripted(func(conn net.Conn, request *http.Request) {
				defer conn.Close()
				if request.URL.Path == wire.PathHealth {
					const health = `{"protocol":1,"features":["copy"]}`
					fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(health), health)
					return
				}
				io.WriteString(conn, c.says)
			})
			dir := t.TempDir()
			err := within(t, func() error { return guest.CopyFrom(t.Context(), liar, "/f", dir+"/f", nil) })
			if c.want == nil && err != nil || !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
			if err != nil && strings.ContainsRune(err.Error(), '\x1b') {
				t.Errorf("%q", err)
			}
			if entries, _ := os.ReadDir(dir); len(entries) > 1 {
				t.Errorf("%v", entries)
			}
		})
	}
}
