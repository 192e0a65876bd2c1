//go:build linux

package image_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tangle-network/microvm-runtime/image"
)

// entry is one of a tar.
type entry struct {
	tar.Header
	content string
}

func tarOf(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		if e.Typeflag == 0 {
			e.Typeflag = tar.TypeReg
		}
		e.Size = int64(len(e.content))
		if err := w.WriteHeader(&e.Header); err != nil {
			t.Fatal(err)
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

// convert makes an image and looks at what FromTar says of it.
func convert(t *testing.T, content []byte) ext4 {
	t.Helper()
	path := filepath.Join(t.TempDir(), "base.ext4")
	made, err := image.FromTar(t.Context(), bytes.NewReader(content), path)
	if err != nil {
		t.Fatal(err)
	}
	checkMade(t, made, path)
	return open(t, path)
}

var (
	long  = strings.Repeat("l", 255)
	deep  = strings.Repeat("deep/", 100) + "file"
	block = strings.Repeat("0123456789abcdef", 256)
	times = tar.Header{ModTime: time.Unix(1700000000, 123456789).UTC(), Format: tar.FormatPAX}
)

func TestFromTar(t *testing.T) {
	attributes := map[string]string{"SCHILY.xattr.user.short": "a\x00b", "SCHILY.xattr.security.capability": "\x01\x00\x00\x02" + strings.Repeat("\x00", 16), "SCHILY.xattr.user.long": block[:900]}
	e := convert(t, tarOf(t,
		entry{tar.Header{Typeflag: tar.TypeXGlobalHeader, Name: "pax_global_header", PAXRecords: map[string]string{"comment": "a commit"}}, ""},
		entry{tar.Header{Typeflag: tar.TypeDir, Name: "./", Mode: 0o750, Uid: 3, Gid: 4}, ""},
		entry{tar.Header{Typeflag: tar.TypeDir, Name: "./tmp/", Mode: 0o1777}, ""},
		entry{tar.Header{Name: "./file", Mode: 0o4755, Uid: 1000, Gid: 70000, ModTime: times.ModTime, Format: tar.FormatPAX}, "hello"},
		entry{tar.Header{Name: "empty", Mode: 0o000}, ""},
		entry{tar.Header{Name: "block", Mode: 0o644}, block},
		entry{tar.Header{Name: "more", Mode: 0o644}, block + "x"},
		entry{tar.Header{Typeflag: tar.TypeLink, Name: "tmp/hard", Linkname: "./file"}, ""},
		entry{tar.Header{Typeflag: tar.TypeLink, Name: "tmp/harder", Linkname: "tmp/hard"}, ""},
		entry{tar.Header{Typeflag: tar.TypeSymlink, Name: "link", Linkname: "../file", Uid: 5}, ""},
		entry{tar.Header{Typeflag: tar.TypeSymlink, Name: "link59", Linkname: block[:59]}, ""},
		entry{tar.Header{Typeflag: tar.TypeSymlink, Name: "link60", Linkname: block[:60]}, ""},
		entry{tar.Header{Typeflag: tar.TypeSymlink, Name: "linklong", Linkname: block[:4000]}, ""},
		entry{tar.Header{Typeflag: tar.TypeChar, Name: "null", Mode: 0o666, Devmajor: 1, Devminor: 3}, ""},
		entry{tar.Header{Typeflag: tar.TypeBlock, Name: "disk", Mode: 0o660, Gid: 6, Devmajor: 259, Devminor: 300}, ""},
		entry{tar.Header{Typeflag: tar.TypeFifo, Name: "fifo", Mode: 0o600}, ""},
		entry{tar.Header{Name: "orphans/without/parents", Mode: 0o644}, "x"},
		entry{tar.Header{Name: long, Mode: 0o644}, "long"},
		entry{tar.Header{Name: deep, Mode: 0o644}, "deep"},
		entry{tar.Header{Name: "ünïcode \xff name", Mode: 0o644, Format: tar.FormatPAX}, "odd"},
		entry{tar.Header{Name: "attributes", Mode: 0o644, Format: tar.FormatPAX, PAXRecords: attributes}, "x"},
		entry{tar.Header{Name: "../../out", Mode: 0o644}, "stays in"},
	))
	e.has("/", "Type: directory", "Mode: 0750", "User: 3 Group: 4")
	e.has("/tmp", "Type: directory", "Mode: 01777", "User: 0 Group: 0")
	e.has("/file", "Type: regular", "Mode: 04755", "User: 1000 Group: 70000 Size: 5", "Links: 3", "mtime: 0x6553f100:1d6f3454")
	e.has("/tmp/harder", "User: 1000 Group: 70000 Size: 5", "Links: 3")
	e.has("/empty", "Mode: 0000", "Size: 0")
	e.has("/link", "Type: symlink", "User: 5", `Fast link dest: "../file"`)
	e.has("/link59", "Size: 59", `Fast link dest: "`+block[:59]+`"`)
	e.has("/link60", "Type: symlink", "Size: 60")
	e.has("/linklong", "Type: symlink", "Size: 4000")
	e.has("/null", "Type: character special", "Mode: 0666", "major/minor number: 01:03")
	e.has("/disk", "Type: block special", "Mode: 0660", "Group: 6", "major/minor number: 259:300")
	e.has("/fifo", "Type: FIFO", "Mode: 0600")
	e.has("/orphans", "Type: directory")
	e.has("/attributes", "user.short (3) = 61 00 62", "security.capability (20) = 01 00 00 02 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00", "user.long (900)")
	for name, want := range map[string]string{
		"/file": "hello", "/tmp/hard": "hello", "/block": block, "/more": block + "x", "/orphans/without/parents": "x", "/" + long: "long", "/" + deep: "deep",
		"/ünïcode \xff name": "odd", "/out": "stays in", "/empty": "",
	} {
		if got := e.content(name); got != want {
			t.Errorf("%.40s: %d bytes, want %d", name, len(got), len(want))
		}
	}
	names := 0
	for line := range strings.Lines(e.debugfs("ls -p /")) {
		if fields := strings.Split(line, "/"); len(fields) > 5 && fields[5] != "" && fields[1] != "0" {
			names++
		}
	}
	if names != len([]string{".", "..", "lost+found"})+18 {
		t.Errorf("the root has %d files:\n%s", names, e.debugfs("ls -p /"))
	}
}

// TestFromTarIsTheSame whatever a tar's times of access are, and in which form it is written.
func TestFromTarIsTheSame(t *testing.T) {
	sums := map[string]bool{}
	for i, format := range []tar.Format{tar.FormatPAX, tar.FormatGNU, tar.FormatPAX} {
		h := tar.Header{Name: "file", Mode: 0o644, ModTime: time.Unix(1700000000, 0), AccessTime: time.Unix(1700000000+int64(i), 0), Format: format}
		h.ChangeTime = h.AccessTime
		path := filepath.Join(t.TempDir(), "base")
		made, err := image.FromTar(t.Context(), bytes.NewReader(tarOf(t, entry{h, "x"})), path)
		if err != nil {
			t.Fatal(err)
		}
		sums[made.SHA256] = true
	}
	if len(sums) != 1 {
		t.Errorf("%d images of the same file", len(sums))
	}
}

// TestFromTarManyFiles has more inodes than one block of the bitmap's bytes, and directories of several blocks.
func TestFromTarManyFiles(t *testing.T) {
	var entries []entry
	for i := range 5000 {
		entries = append(entries, entry{tar.Header{Name: fmt.Sprintf("directory/file-%04d-%s", i, block[:20]), Mode: 0o644}, fmt.Sprint(i)})
	}
	e := convert(t, tarOf(t, entries...))
	if got := e.content("/directory/file-4999-" + block[:20]); got != "4999" {
		t.Errorf("the last is %q", got)
	}
	if n := strings.Count(e.debugfs("ls -p /directory"), "file-"); n != 5000 {
		t.Errorf("%d files", n)
	}
}

// zeros is a tar of one file of zeros, but for its last byte.
func zeros(size int64) io.Reader {
	var head bytes.Buffer
	w := tar.NewWriter(&head)
	w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "large", Mode: 0o644, Size: size}) // a buffer takes all
	return io.MultiReader(&head, io.LimitReader(zero{}, size-1), strings.NewReader("x"), io.LimitReader(zero{}, -size&511+1024))
}

type zero struct{}

func (zero) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// TestFromTarLargeFile has more extents than an inode has room for: each is 128 MiB.
func TestFromTarLargeFile(t *testing.T) {
	const size = 4*128<<20 + 5
	path := filepath.Join(t.TempDir(), "base")
	if _, err := image.FromTar(t.Context(), zeros(size), path); err != nil {
		t.Fatal(err)
	}
	e := open(t, path)
	e.has("/large", fmt.Sprint("Size: ", size))
	last := strings.TrimSpace(e.debugfs(fmt.Sprintf("bmap /large %d", size/4096)))
	if text := e.debugfs("block_dump " + last); !strings.Contains(text, "0000  0000 0000 7800 0000") {
		t.Errorf("its last block, %s: %s", last, text)
	}
}

func TestFromTarRefuses(t *testing.T) {
	whole := tarOf(t, entry{tar.Header{Name: "a", Mode: 0o644}, block}, entry{tar.Header{Name: "b", Mode: 0o644}, "x"})
	ended, cancel := context.WithCancelCause(t.Context())
	stopped := errors.New("stopped")
	cancel(stopped)
	failed := errors.New("the source failed")
	for name, c := range map[string]struct {
		ctx  context.Context
		r    io.Reader
		want error // nil for any
	}{
		"text":                        {t.Context(), strings.NewReader(strings.Repeat("hello ", 1000)), nil},
		"an end within a header":      {t.Context(), bytes.NewReader(whole[:700]), nil},
		"an end within a file":        {t.Context(), bytes.NewReader(whole[:3000]), io.ErrUnexpectedEOF},
		"a source that fails":         {t.Context(), io.MultiReader(bytes.NewReader(whole[:3000]), failing{failed}), failed},
		"a context that has ended":    {ended, bytes.NewReader(whole), stopped},
		"a link to nothing":           {t.Context(), bytes.NewReader(tarOf(t, entry{tar.Header{Typeflag: tar.TypeLink, Name: "l", Linkname: "none"}, ""})), nil},
		"a name that is too long":     {t.Context(), bytes.NewReader(tarOf(t, entry{tar.Header{Name: long + "l"}, "x"})), nil},
		"a file below a file":         {t.Context(), bytes.NewReader(tarOf(t, entry{tar.Header{Name: "a"}, "x"}, entry{tar.Header{Name: "a/b"}, "x"})), nil},
		"an entry of another kind":    {t.Context(), bytes.NewReader(tarOf(t, entry{tar.Header{Typeflag: 'V', Name: "volume"}, ""})), nil},
		"an ACL that is none":         {t.Context(), bytes.NewReader(tarOf(t, entry{tar.Header{Name: "a", PAXRecords: map[string]string{"SCHILY.xattr.system.posix_acl_access": "x"}}, ""})), nil},
		"an attribute without a room": {t.Context(), bytes.NewReader(tarOf(t, entry{tar.Header{Name: "a", PAXRecords: map[string]string{"SCHILY.xattr.user.x": block}}, ""})), nil},
	} {
		dir := t.TempDir()
		_, err := image.FromTar(c.ctx, c.r, filepath.Join(dir, "base"))
		if err == nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
			t.Errorf("%s: %v is left, %v", name, entries, err)
		}
	}
	if _, err := image.FromTar(t.Context(), bytes.NewReader(whole), filepath.Join(t.TempDir(), "none", "base")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }
