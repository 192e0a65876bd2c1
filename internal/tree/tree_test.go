//go:build linux

package tree_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/tree"
)

// entry is a file of a tar, with its content.
type entry struct {
	tar.Header
	content string
}

func dir(name string) entry {
	return entry{tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755}, ""}
}

func file(name, content string) entry {
	return entry{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(content))}, content}
}

func link(kind byte, name, to string) entry {
	return entry{tar.Header{Typeflag: kind, Name: name, Linkname: to, Mode: 0o777}, ""}
}

func (e entry) with(change func(h *tar.Header)) entry {
	change(&e.Header)
	return e
}

func tarOf(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		if err := w.WriteHeader(&e.Header); err != nil {
			t.Fatal(e.Name, err)
		}
		if _, err := io.WriteString(w, e.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// world is a directory with a target, and with what nobody may touch.
type world struct {
	t              testing.TB
	target, around string
	before         []string
}

func newWorld(t testing.TB) *world {
	t.Helper()
	around := t.TempDir()
	w := &world{t: t, target: filepath.Join(around, "target"), around: around}
	if err := errors.Join(os.Mkdir(w.target, 0o755), os.Mkdir(filepath.Join(around, "outside"), 0o755), os.WriteFile(filepath.Join(around, "secret"), []byte("secret"), 0o600)); err != nil {
		t.Fatal(err)
	}
	w.before = w.list()
	return w
}

// list tells everything around the target.
func (w *world) list() (all []string) {
	w.t.Helper()
	filepath.WalkDir(w.around, func(path string, entry fs.DirEntry, err error) error {
		if path == w.target {
			return fs.SkipDir
		}
		info, _ := os.Lstat(path)
		text, _ := os.ReadFile(path)
		stat := info.Sys().(*syscall.Stat_t)
		if path == w.around {
			stat.Nlink = 0
		}
		all = append(all, strings.Join([]string{path, info.Mode().String(), string(text), string(rune('0' + stat.Nlink))}, " "))
		return nil
	})
	return all
}

// check fails when something outside has changed, or something unfinished is left inside.
func (w *world) check() {
	w.t.Helper()
	if after := w.list(); !slices.Equal(after, w.before) {
		w.t.Errorf("outside of the target there is now\n%q, before\n%q", after, w.before)
	}
	filepath.WalkDir(w.target, func(path string, entry fs.DirEntry, err error) error {
		if strings.HasPrefix(filepath.Base(path), ".copy-") {
			w.t.Errorf("left behind: %s", path)
		}
		return nil
	})
}

func TestHostileTars(t *testing.T) {
	long := strings.Repeat("n/", 3000) + "n"
	many := slices.Repeat([]entry{file("f", "")}, 11)
	for name, c := range map[string]struct {
		entries []entry
		want    error // nil when it is good
	}{
		"allowed":                    {[]entry{dir("./"), dir("a"), file("a/f", "f"), link(tar.TypeSymlink, "up", "../secret"), link(tar.TypeLink, "b", "a/f"), file("deep/er/f", "")}, nil},
		"up":                         {[]entry{file("../f", "f")}, tree.ErrUnsafe},
		"up from below":              {[]entry{file("a/../../f", "f")}, tree.ErrUnsafe},
		"absolute":                   {[]entry{file("/f", "f")}, tree.ErrUnsafe},
		"no name":                    {[]entry{link(tar.TypeSymlink, "", "f")}, tree.ErrUnsafe},
		"the target itself":          {[]entry{file(".", "")}, tree.ErrUnsafe},
		"through a link up":          {[]entry{link(tar.TypeSymlink, "l", "../outside"), file("l/f", "f")}, tree.ErrUnsafe},
		"through an absolute link":   {[]entry{link(tar.TypeSymlink, "l", "/"), file("l/tmp/microvm-must-not-be", "f")}, tree.ErrUnsafe},
		"through two links":          {[]entry{link(tar.TypeSymlink, "a", "b/.."), link(tar.TypeSymlink, "b", ".."), file("a/f", "f")}, tree.ErrUnsafe},
		"links in a circle":          {[]entry{link(tar.TypeSymlink, "a", "b"), link(tar.TypeSymlink, "b", "a"), file("a/f", "f")}, syscall.ELOOP},
		"over a link":                {[]entry{link(tar.TypeSymlink, "l", "../secret"), file("l", "changed")}, nil},
		"a directory over a link":    {[]entry{link(tar.TypeSymlink, "l", "../outside"), dir("l").with(func(h *tar.Header) { h.Mode = 0o777 })}, tree.ErrUnsafe},
		"a hard link to the outside": {[]entry{link(tar.TypeLink, "l", "../secret")}, tree.ErrUnsafe},
		"an absolute hard link":      {[]entry{link(tar.TypeLink, "l", "/etc/passwd")}, tree.ErrUnsafe},
		"a hard link by a link":      {[]entry{link(tar.TypeSymlink, "s", ".."), link(tar.TypeLink, "l", "s/secret")}, tree.ErrUnsafe},
		"a hard link to a link":      {[]entry{link(tar.TypeSymlink, "s", "../secret"), link(tar.TypeLink, "l", "s"), file("l", "changed")}, nil},
		"a hard link to nothing":     {[]entry{link(tar.TypeLink, "l", "nothing")}, fs.ErrNotExist},
		"a hard link to itself":      {[]entry{file("f", "f"), link(tar.TypeLink, "f", "f")}, nil},
		"a character device":         {[]entry{link(tar.TypeChar, "d", "").with(func(h *tar.Header) { h.Devmajor, h.Devminor = 1, 3 })}, tree.ErrUnsafe},
		"a block device":             {[]entry{link(tar.TypeBlock, "d", "")}, tree.ErrUnsafe},
		"a named pipe":               {[]entry{link(tar.TypeFifo, "p", "")}, tree.ErrUnsafe},
		"a type that is none":        {[]entry{link('Z', "z", "")}, tree.ErrUnsafe},
		"a huge name":                {[]entry{file(long, "f")}, tree.ErrUnsafe},
		"a long part of a name":      {[]entry{file(strings.Repeat("n", 300), "f")}, syscall.ENAMETOOLONG},
		"a huge link":                {[]entry{link(tar.TypeSymlink, "l", long)}, syscall.ENAMETOOLONG},
		"a file over a directory":    {[]entry{dir("a"), file("a", "f")}, fs.ErrExist},
		"a directory over a file":    {[]entry{file("a", "f"), dir("a")}, fs.ErrExist},
		"below a file":               {[]entry{file("a", "f"), file("a/f", "f")}, fs.ErrExist},
		"too many files":             {many, tree.ErrTooMuch},
		"too much":                   {[]entry{file("f", strings.Repeat("f", 60_000)), file("g", strings.Repeat("f", 60_000))}, tree.ErrTooMuch},
		"as much as is allowed":      {many[:10], nil},
		"an odd time":                {[]entry{file("f", "f").with(func(h *tar.Header) { h.ModTime, h.Format = time.Unix(1<<40, 0), tar.FormatPAX })}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			_, err := tree.Unpack(t.Context(), bytes.NewReader(tarOf(t, c.entries...)), w.target, tree.PutOptions{MaxBytes: 100_000, MaxFiles: 10})
			if c.want == nil && err != nil || !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
			w.check()
		})
	}
}

// endless is a tar without an end.
type endless struct{ part, rest []byte }

func (e *endless) Read(p []byte) (int, error) {
	if len(e.rest) == 0 {
		e.rest = e.part
	}
	n := copy(p, e.rest)
	e.rest = e.rest[n:]
	return n, nil
}

func TestEndlessTars(t *testing.T) {
	one := tarOf(t, file("f", "f"))
	pax := tarOf(t, file(strings.Repeat("f", 150), "").with(func(h *tar.Header) { h.PAXRecords = map[string]string{"A.b": "c"} }))
	for name, part := range map[string][]byte{"files": one[:1024], "headers": pax[:1024], "zeros": make([]byte, 512), "names without a file": pax[:1024]} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			_, err := tree.Unpack(t.Context(), &endless{part: part}, w.target, tree.PutOptions{MaxBytes: 1 << 20})
			if name != "zeros" && !errors.Is(err, tree.ErrTooMuch) { // zeros are the end of a tar
				t.Errorf("%v", err)
			}
			w.check()
		})
	}
	huge := entry{tar.Header{Typeflag: tar.TypeReg, Name: "f", Size: math.MaxInt64 - 1000, Format: tar.FormatPAX}, ""}
	var b bytes.Buffer
	if err := tar.NewWriter(&b).WriteHeader(&huge.Header); err != nil {
		t.Fatal(err)
	}
	for most, want := range map[int64]error{1 << 20: tree.ErrTooMuch, 0: io.ErrUnexpectedEOF} {
		w := newWorld(t)
		if _, err := tree.Unpack(t.Context(), bytes.NewReader(b.Bytes()), w.target, tree.PutOptions{MaxBytes: most}); !errors.Is(err, want) {
			t.Errorf("a huge file: %v, want %v", err, want)
		}
		w.check()
	}
}

// counting tells of each byte that was read, of a reader that reads one at a time.
type counting struct {
	io.Reader
	tell func()
}

func (c counting) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	if n > 0 {
		c.tell()
	}
	return n, err
}

// holes is a tar with a sparse file of zeros alone, which needs no byte of the tar for them.
func holes(t *testing.T, size int64) []byte {
	t.Helper()
	records := map[string]string{"XNU.sparse.major": "1", "XNU.sparse.minor": "0", "XNU.sparse.name": "f", "XNU.sparse.realsize": fmt.Sprint(size)}
	const none = "0\n" // places with data
	content := tarOf(t, file("f", none+strings.Repeat("\x00", 512-len(none))).with(func(h *tar.Header) { h.PAXRecords = records }))
	content = bytes.ReplaceAll(content, []byte("XNU."), []byte("GNU.")) // which package tar does not write
	return content[:len(content)-1024]
}

// TestContextEndsAFileOfHoles though nothing is read of its tar while it is written.
func TestContextEndsAFileOfHoles(t *testing.T) {
	for size, want := range map[int64]error{1 << 20: nil, 1 << 30: context.Canceled} {
		w := newWorld(t)
		ctx, cancel := context.WithCancel(t.Context())
		content := holes(t, size)
		left := len(content)
		all := counting{iotest.OneByteReader(bytes.NewReader(content)), func() {
			if left--; left == 0 && want != nil {
				cancel()
			}
		}}
		progress, err := tree.Unpack(ctx, all, w.target, tree.PutOptions{})
		if !errors.Is(err, want) || (progress.Bytes == size) != (want == nil) {
			t.Errorf("%d bytes: %+v, %v, want %v", size, progress, err, want)
		}
		w.check()
		cancel()
	}
}

func TestBitsAndOwnersAreKeptWhenAsked(t *testing.T) {
	set := func(h *tar.Header) { h.Mode = 0o7755 }
	content := tarOf(t, dir("d").with(set), file("f", "f").with(set))
	for _, keep := range []bool{false, true} {
		w := newWorld(t)
		if _, err := tree.Unpack(t.Context(), bytes.NewReader(content), w.target, tree.PutOptions{Setuid: keep}); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"d", "f"} {
			info, err := os.Stat(filepath.Join(w.target, name))
			if err != nil || (info.Mode()&(fs.ModeSetuid|fs.ModeSetgid) != 0) != keep || info.Mode().Perm() != 0o755 || info.Mode()&fs.ModeSticky == 0 {
				t.Errorf("with Setuid %v: %v, %v", keep, info, err)
			}
		}
	}
}

func TestACutTarLeavesNoPartOfAFile(t *testing.T) {
	content := tarOf(t, dir("d").with(func(h *tar.Header) { h.Mode = 0o500 }), file("d/one", strings.Repeat("1", 3000)), file("d/two", strings.Repeat("2", 3000)))
	w := newWorld(t)
	for cut := 100; cut < 7*512; cut += 700 {
		progress, err := tree.Unpack(t.Context(), io.MultiReader(bytes.NewReader(content[:cut]), failing{}), w.target, tree.PutOptions{})
		if err == nil || progress.Files > 2 {
			t.Errorf("cut at %d: %+v, %v", cut, progress, err)
		}
		w.check()
	}
	if _, err := tree.Unpack(t.Context(), bytes.NewReader(content), w.target, tree.PutOptions{}); err != nil {
		t.Error("again:", err)
	}
	if text, err := os.ReadFile(filepath.Join(w.target, "d/two")); err != nil || len(text) != 3000 {
		t.Error(len(text), err)
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestPutKnowsTheDestination(t *testing.T) {
	tarDir, tarFile := tarOf(t, dir("./"), file("./f", "new")), tarOf(t, file("x", "new"))
	for name, c := range map[string]struct {
		content      []byte
		target       string
		contents     bool
		exact        bool
		want         string // where "new" is then; empty for an error
		wantedAsWell string
	}{
		"a file to a new name":                  {tarFile, "new", false, false, "new", "dir/old"},
		"a file to a new name with a slash":     {tarFile, "new/", false, false, "", "dir/old"},
		"a file below nothing":                  {tarFile, "no/new", false, false, "", "dir/old"},
		"a file over a file":                    {tarFile, "dir/old", false, false, "dir/old", "dir"},
		"a file into a directory":               {tarFile, "dir", false, false, "dir/name", "dir/old"},
		"a file into a directory with a slash":  {tarFile, "dir/", false, false, "dir/name", "dir/old"},
		"a file exactly over a directory":       {tarFile, "dir", false, true, "", "dir/old"},
		"a file over a directory's directory":   {tarFile, "taken", false, false, "", "taken/name"},
		"a directory to a new name":             {tarDir, "new", false, false, "new/f", "dir/old"},
		"a directory to a new name, with slash": {tarDir, "new/", false, false, "new/f", "dir/old"},
		"a directory into a directory":          {tarDir, "dir", false, false, "dir/name/f", "dir/old"},
		"a directory into its like":             {tarDir, "taken", false, false, "taken/name/f", "dir/old"},
		"a directory exactly over its like":     {tarDir, "dir", false, true, "dir/f", "dir/old"},
		"contents into a directory":             {tarDir, "dir", true, false, "dir/f", "dir/old"},
		"contents to a new name":                {tarDir, "new", true, false, "new/f", "dir/old"},
		"a directory over a file":               {tarDir, "dir/old", false, false, "", "dir/old"},
		"a directory into a link to one":        {tarDir, "link", false, false, "dir/name/f", "dir/old"},
		"contents into a link to one":           {tarDir, "link", true, false, "dir/f", "dir/old"},
		"a directory where a link leads out":    {tarDir, "trap", false, false, "", "dir/old"},
		"exactly where a link leads out":        {tarDir, "trap/name", false, true, "", "dir/old"},
		"two files":                             {tarOf(t, file("x", "new"), file("y", "new")), "dir", false, false, "", "dir/old"},
		"a hard link alone":                     {tarOf(t, link(tar.TypeLink, "x", "old")), "dir", false, false, "", "dir/old"},
		"nothing":                               {tarOf(t), "dir", false, false, "", "dir/old"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			at := func(name string) string { return w.target + "/" + name }
			if err := errors.Join(os.MkdirAll(at("taken/name"), 0o755), os.Mkdir(at("dir"), 0o755), os.Mkdir(at("trap"), 0o755), os.WriteFile(at("dir/old"), []byte("old"), 0o600),
				os.Symlink("dir", at("link")), os.Symlink(w.around+"/outside", at("trap/name"))); err != nil {
				t.Fatal(err)
			}
			_, err := tree.Put(t.Context(), bytes.NewReader(c.content), at(c.target), tree.PutOptions{Name: "name", Contents: c.contents, Exact: c.exact})
			if (err == nil) != (c.want != "") {
				t.Errorf("error %v", err)
			}
			if c.want != "" {
				if text, err := os.ReadFile(at(c.want)); err != nil || string(text) != "new" {
					t.Errorf("%q, %v", text, err)
				}
			}
			if _, err := os.Stat(at(c.wantedAsWell)); err != nil {
				t.Error(err)
			}
			w.check()
		})
	}
}
