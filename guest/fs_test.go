//go:build linux

package guest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/guest"
	"github.com/tangle-network/microvm-runtime/guest/guesttest"
	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// shelf makes a tree to be read, with a directory of several pages.
func shelf(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	errs := []error{
		os.MkdirAll(at("sub/ümläut/空"), 0o755), os.Mkdir(at("many"), 0o755), os.Mkdir(at("empty"), 0o700), os.WriteFile(at("sub/f"), []byte("content\n"), 0o640),
		os.WriteFile(at("sub/none"), nil, 0o600), os.WriteFile(at("sub/ümläut/空/a b"), []byte("x"), 0o600), os.WriteFile(at("sub/\xff"), nil, 0o600),
		os.Symlink("f", at("sub/link")), os.Symlink("sub", at("linked")), syscall.Mkfifo(at("pipe"), 0o600),
	}
	for i := range 520 { // a page is of 512
		errs = append(errs, os.WriteFile(at(fmt.Sprintf("many/%04d", i)), []byte{byte(i)}, 0o600))
	}
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestFSIsAFileSystem(t *testing.T) {
	dir := shelf(t)
	fsys := guest.FS(t.Context(), guesttest.New(t), dir)
	if err := os.Remove(filepath.Join(dir, "pipe")); err != nil { // which TestFS would read
		t.Fatal(err)
	}
	if err := fstest.TestFS(fsys, "sub/f", "sub/ümläut/空/a b", "sub/link", "many/0000", "many/0519", "empty"); err != nil {
		t.Error(err)
	}
	sub, err := fs.Sub(fsys, "sub")
	if err != nil {
		t.Fatal(err)
	}
	if err := fstest.TestFS(sub, "f", "ümläut"); err != nil {
		t.Error(err)
	}
	theirs := map[string]fs.FileInfo{}
	walk := func(into map[string]fs.FileInfo) fs.WalkDirFunc {
		return func(name string, entry fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			into[name], err = entry.Info()
			return err
		}
	}
	if err := fs.WalkDir(fsys, ".", walk(theirs)); err != nil {
		t.Fatal(err)
	}
	ours := map[string]fs.FileInfo{}
	if err := fs.WalkDir(os.DirFS(dir), ".", walk(ours)); err != nil {
		t.Fatal(err)
	}
	delete(ours, "sub/\xff")
	if len(ours) != len(theirs) {
		t.Errorf("%d names, want %d", len(theirs), len(ours))
	}
	for name, want := range ours {
		if got := theirs[name]; got == nil || got.Mode() != want.Mode() || got.Size() != want.Size() || !got.ModTime().Equal(want.ModTime()) || got.Sys().(guest.FileInfo).UID != uint32(os.Getuid()) {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
}

func TestFSErrors(t *testing.T) {
	fsys := guest.FS(t.Context(), guesttest.New(t), shelf(t))
	for name, want := range map[string]error{"nothing": fs.ErrNotExist, "sub/f/g": nil, "/etc": fs.ErrInvalid, "../x": fs.ErrInvalid, "": fs.ErrInvalid, strings.Repeat("n/", 2500) + "n": fs.ErrInvalid} {
		_, errOpen := fsys.Open(name)
		_, errStat := fs.Stat(fsys, name)
		_, errRead := fs.ReadFile(fsys, name)
		_, errDir := fs.ReadDir(fsys, name)
		for _, err := range []error{errOpen, errStat, errRead, errDir} {
			if at := (*fs.PathError)(nil); !errors.As(err, &at) || want != nil && !errors.Is(err, want) {
				t.Errorf("%.20q: %v", name, err)
			}
		}
	}
	if _, err := fs.Stat(fsys, "nothing"); !errors.Is(err, guest.ErrNotFound) {
		t.Error(err)
	}
	if to, err := fs.ReadLink(fsys, "sub/link"); to != "f" || err != nil {
		t.Errorf("it leads to %q, %v", to, err)
	}
	if _, err := fs.ReadLink(fsys, "sub/f"); !errors.Is(err, syscall.EINVAL) {
		t.Error(err)
	}
	pipe, err := fsys.Open("pipe")
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	if _, err := pipe.Read(make([]byte, 1)); !errors.Is(err, microvm.ErrInvalid) {
		t.Errorf("a pipe is read: %v", err)
	}
}

// TestFSStreams reads parts of a file that is larger than what ReadFile takes, from several places.
func TestFSStreams(t *testing.T) {
	dir := t.TempDir()
	const size = guest.MaxReadFile + 1<<20
	f, err := os.Create(filepath.Join(dir, "large"))
	if err == nil {
		err = errors.Join(f.Truncate(size), second(f.WriteAt([]byte("in the middle"), size/2)), second(f.WriteAt([]byte("the end"), size-7)), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	a := guesttest.New(t)
	fsys := guest.FS(t.Context(), a, dir)
	if _, err := fs.ReadFile(fsys, "large"); !errors.Is(err, guest.ErrTooMuch) {
		t.Error(err)
	}
	file, err := fsys.Open("large")
	if err != nil {
		t.Fatal(err)
	}
	if n, err := io.ReadFull(file, make([]byte, 100)); n != 100 || err != nil {
		t.Fatal(n, err)
	}
	seeker := file.(io.Seeker)
	for _, c := range []struct {
		offset int64
		whence int
		want   string
	}{{size / 2, io.SeekStart, "in the middle"}, {-13, io.SeekCurrent, "in the middle"}, {-7, io.SeekEnd, "the end"}} {
		got := make([]byte, len(c.want))
		if _, err := seeker.Seek(c.offset, c.whence); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(file, got); err != nil || string(got) != c.want {
			t.Errorf("at %d: %q, %v", c.offset, got, err)
		}
	}
	if n, err := file.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("at the end: %d, %v", n, err)
	}
	if _, err := seeker.Seek(-1, io.SeekStart); !errors.Is(err, fs.ErrInvalid) {
		t.Error(err)
	}
	if n, err := seeker.Seek(5, io.SeekEnd); n != size+5 || err != nil {
		t.Error(n, err)
	}
	if n, err := file.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("beyond the end: %d, %v", n, err)
	}
	if err := file.Close(); err != nil {
		t.Error(err)
	}
	if _, err := file.Read(make([]byte, 1)); !errors.Is(err, fs.ErrClosed) {
		t.Error(err)
	}
	if n := a.Cut(); n != 0 {
		t.Errorf("%d connections are left", n)
	}
}

func second[T any](_ T, err error) error { return err }

func TestFSEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "f"), bytes.Repeat([]byte("x"), 4<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	fsys := guest.FS(ctx, guesttest.New(t), dir)
	file, err := fsys.Open("f")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := io.Copy(io.Discard, file); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if _, err := fs.ReadDir(fsys, "."); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestFSOfAnOldAgent(t *testing.T) {
	const health = `{"protocol":1,"features":["copy"]}`
	old := scripted(func(conn net.Conn, request *http.Request) {
		body, status := health, "200 OK"
		switch request.URL.Path {
		case wire.PathFilesStat:
			body = `{"name":"d","mode":2147484141}`
		case wire.PathFilesList:
			body, status = "", "404 Not Found"
		}
		fmt.Fprintf(conn, "HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s", status, len(body), body)
	})
	fsys := guest.FS(t.Context(), old, "/d")
	if info, err := fs.Stat(fsys, "."); err != nil || !info.IsDir() {
		t.Errorf("%+v, %v", info, err)
	}
	if _, err := fs.ReadDir(fsys, "."); !errors.Is(err, microvm.ErrUnsupported) {
		t.Error(err)
	}
}

// TestFSOfALyingAgent lists what no directory has.
func TestFSOfALyingAgent(t *testing.T) {
	for name, c := range map[string]struct {
		body string
		want error
	}{
		"all is well":    {`{"files":[{"name":"a"},{"name":"b"}]}`, nil},
		"a long name":    {`{"files":[{"name":"` + strings.Repeat("n", 256) + `"}]}`, guest.ErrAgent},
		"a way out":      {`{"files":[{"name":".."}]}`, guest.ErrAgent},
		"a path":         {`{"files":[{"name":"a/b"}]}`, guest.ErrAgent},
		"no name":        {`{"files":[{"name":""}]}`, guest.ErrAgent},
		"itself":         {`{"files":[{"name":"."}]}`, guest.ErrAgent},
		"twice":          {`{"files":[{"name":"a"},{"name":"a"}]}`, guest.ErrAgent},
		"backwards":      {`{"files":[{"name":"b"},{"name":"a"}]}`, guest.ErrAgent},
		"a page back":    {`{"files":[{"name":"b"}],"next":"a"}`, guest.ErrAgent},
		"the same again": {`{"files":[],"next":"b"}`, guest.ErrAgent},
		"no files":       {`[]`, guest.ErrAgent},
	} {
		lying := scripted(func(conn net.Conn, _ *http.Request) {
			fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(c.body), c.body)
		})
		entries, err := fs.ReadDir(guest.FS(t.Context(), lying, "/"), ".")
		if c.want == nil && (err != nil || !slices.EqualFunc(entries, []string{"a", "b"}, func(e fs.DirEntry, name string) bool { return e.Name() == name })) || !errors.Is(err, c.want) {
			t.Errorf("%s: %v, %v", name, entries, err)
		}
	}
}

// TestFSOfAnAgentWithoutEnd lists pages that go on: what the host keeps of one is no more than a directory has, and pages of nothing end too.
func TestFSOfAnAgentWithoutEnd(t *testing.T) {
	pages := 0
	endless := func(entry string) scripted {
		return func(conn net.Conn, _ *http.Request) {
			pages++
			next := fmt.Sprintf("%09d", pages)
			io.WriteString(conn, answer(http.StatusOK, fmt.Sprintf(`{"files":[%s],"next":"%s"}`, strings.ReplaceAll(entry, "NAME", next), next)))
		}
	}
	if _, err := fs.ReadDir(guest.FS(t.Context(), endless(""), "/"), "."); !errors.Is(err, guest.ErrAgent) || pages > 1000 {
		t.Errorf("pages of nothing: %d, %v", pages, err)
	}
	dir, err := guest.FS(t.Context(), scripted(func(conn net.Conn, request *http.Request) {
		if request.URL.Path == wire.PathFilesStat {
			io.WriteString(conn, answer(http.StatusOK, `{"name":"d","mode":2147484141}`))
			return
		}
		endless(`{"name":"NAME","link":"`+strings.Repeat("l", 1<<19)+`"}`)(conn, request)
	}), "/").Open(".")
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	entries, err := dir.(fs.ReadDirFile).ReadDir(3)
	if err != nil || len(entries) != 3 {
		t.Fatal(len(entries), err)
	}
	for _, entry := range entries {
		if info, err := entry.Info(); err != nil || info.Sys().(guest.FileInfo).Link != "" {
			t.Errorf("%s keeps %d bytes of a link, %v", entry.Name(), len(info.Sys().(guest.FileInfo).Link), err)
		}
	}
}

// TestFSReadsOverACutConnection: a snapshot breaks every connection, and a file that is read goes on where it was.
func TestFSReadsOverACutConnection(t *testing.T) {
	dir := t.TempDir()
	want := make([]byte, 16<<20) // more than is on its way
	for i := range want {
		want[i] = byte(i >> 12)
	}
	if err := os.WriteFile(filepath.Join(dir, "f"), want, 0o600); err != nil {
		t.Fatal(err)
	}
	a := guesttest.New(t)
	file, err := guest.FS(t.Context(), a, dir).Open("f")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	begin := make([]byte, 1000)
	if _, err := io.ReadFull(file, begin); err != nil {
		t.Fatal(err)
	}
	if a.Cut() == 0 {
		t.Error("nothing was cut")
	}
	rest, err := io.ReadAll(file)
	if err != nil || !bytes.Equal(append(begin, rest...), want) {
		t.Errorf("%d bytes of %d, %v", len(begin)+len(rest), len(want), err)
	}
}
