//go:build linux

package tree

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/wire"
)

var errCut = errors.New("cut")

// cutAfter is a reader that fails after so many bytes.
func cutAfter(text []byte, n int) io.Reader {
	if n >= len(text) {
		return bytes.NewReader(text)
	}
	return io.MultiReader(bytes.NewReader(text[:n]), failing{})
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errCut }

// small makes a tree of all kinds, whose order is not that of its paths.
func small(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "small")
	at := func(name string) string { return filepath.Join(dir, name) }
	err := errors.Join(os.MkdirAll(at("a/deep"), 0o755), os.Mkdir(at("a.b"), 0o750), os.Mkdir(at("a-"), 0o700), os.WriteFile(at("a/deep/f"), []byte(strings.Repeat("f", 3000)), 0o640),
		os.WriteFile(at("a.b/\xff"), []byte("no UTF-8"), 0o600), os.WriteFile(at("a-/empty"), nil, 0o600), os.Symlink("deep/f", at("a/link")), os.Link(at("a/deep/f"), at("z")),
		os.WriteFile(at("last"), []byte(strings.Repeat("l", 1000)), 0o600), os.Chtimes(at("a"), time.Time{}, time.Unix(1e9, 5)))
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func packed(t *testing.T, dir string, o PackOptions) []byte {
	t.Helper()
	var b bytes.Buffer
	if _, err := Pack(t.Context(), &b, dir, o); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// looks tells what is in a tree.
func looks(t *testing.T, dir string) (all []string) {
	t.Helper()
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		text, _ := os.ReadFile(path)
		links := uint64(0)
		if !info.IsDir() {
			links = uint64(info.Sys().(*syscall.Stat_t).Nlink)
		}
		line := fmt.Sprintf("%q %v %x %d", name, info.Mode(), text, links)
		if info.Mode()&os.ModeSymlink == 0 {
			line += info.ModTime().String()
		}
		all = append(all, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestATarThatIsCutAnywhereGoesOn cuts a tar, and the one that goes on, at every so many bytes: what is made is the same, and little comes twice.
func TestATarThatIsCutAnywhereGoesOn(t *testing.T) {
	dir := small(t)
	whole, want := packed(t, dir, PackOptions{Name: "."}), looks(t, dir)
	for n := 0; n <= len(whole); n += 211 {
		target := filepath.Join(t.TempDir(), "x")
		cuts, sent := 0, min(n, len(whole))
		progress, err := Put(t.Context(), cutAfter(whole, n), target, PutOptions{Again: func(at Position, failed error) (io.Reader, error) {
			if cuts++; !errors.Is(failed, errCut) || cuts > 200 {
				return nil, failed
			}
			rest := packed(t, dir, PackOptions{Name: ".", From: at})
			part := min(len(rest), n+512*cuts) // each comes further, or nothing would end
			sent += part
			return cutAfter(rest, part), nil
		}})
		if err != nil {
			t.Fatalf("cut after %d: %v", n, err)
		}
		if got := looks(t, target); !slices.Equal(got, want) {
			t.Fatalf("cut after %d:\n%q\n%q", n, got, want)
		}
		if progress.Files != 11 || progress.Bytes != 4008 || n > 2000 && sent > len(whole)+cuts*4096 {
			t.Errorf("cut after %d: %+v, %d bytes were sent in %d parts, of %d", n, progress, sent, cuts+1, len(whole))
		}
		if left, _ := filepath.Glob(target + "/*/.copy-*"); len(left) > 0 {
			t.Errorf("cut after %d: left behind: %v", n, left)
		}
	}
}

func TestASourceThatChangesWhileItIsCut(t *testing.T) {
	for name, change := range map[string]func(dir string) error{
		"another content": func(dir string) error { return os.WriteFile(dir+"/a/deep/f", []byte("new"), 0o600) },
		"as long, and another time": func(dir string) error {
			return errors.Join(os.WriteFile(dir+"/a/deep/f", []byte(strings.Repeat("g", 3000)), 0o600), os.Chtimes(dir+"/a/deep/f", time.Time{}, time.Unix(1e9, 0)))
		},
		"gone": func(dir string) error { return errors.Join(os.Remove(dir+"/a/deep/f"), os.Remove(dir+"/z")) },
		"a directory": func(dir string) error {
			return errors.Join(os.Remove(dir+"/a/deep/f"), os.Mkdir(dir+"/a/deep/f", 0o755))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir, target := small(t), filepath.Join(t.TempDir(), "x")
			whole := packed(t, dir, PackOptions{Name: "."})
			at := bytes.Index(whole, []byte("ffff")) + 1500
			_, err := Put(t.Context(), cutAfter(whole, at), target, PutOptions{Again: func(at Position, _ error) (io.Reader, error) {
				if at.File != "a/deep/f" || at.Offset == 0 || at.Size != 3000 {
					t.Errorf("%+v", at)
				}
				if err := change(dir); err != nil {
					return nil, err
				}
				return bytes.NewReader(packed(t, dir, PackOptions{Name: ".", From: at})), nil
			}})
			if err != nil {
				t.Fatal(err)
			}
			want, got := looks(t, dir), looks(t, target)
			differ := func(line string) bool { return strings.HasPrefix(line, `"a/deep" `) || strings.HasPrefix(line, `"." `) } // what was made before keeps what was said then
			want, got = slices.DeleteFunc(want, differ), slices.DeleteFunc(got, differ)
			if !slices.Equal(got, want) {
				t.Errorf("\n%q\n%q", got, want)
			}
		})
	}
}

func TestOneFileGoesOn(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/f", []byte(strings.Repeat("0123456789", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	whole := packed(t, dir+"/f", PackOptions{Name: "."})
	o := PutOptions{Again: func(at Position, _ error) (io.Reader, error) {
		return bytes.NewReader(packed(t, dir+"/f", PackOptions{Name: ".", From: at})), nil
	}}
	for n := range len(whole) / 100 {
		if _, err := Put(t.Context(), cutAfter(whole, 100*n), dir+"/g", o); err != nil {
			t.Fatal(n, err)
		}
		if got, want := looks(t, dir+"/g"), looks(t, dir+"/f"); !slices.Equal(got, want) {
			t.Fatalf("%d: %q", n, got)
		}
	}
	var offsets []int64
	o.Again = func(at Position, _ error) (io.Reader, error) {
		offsets = append(offsets, at.Offset)
		rest := packed(t, dir+"/f", PackOptions{Name: ".", From: at})
		return cutAfter(rest, map[int]int{1: 600, 2: 0, 3: 2536}[len(offsets)]+max(0, len(offsets)-3)*len(rest)), nil // before it goes on, at once, within, not
	}
	if _, err := Put(t.Context(), cutAfter(whole, 1536+3000), dir+"/g", o); err != nil || !slices.Equal(offsets, []int64{3000, 3000, 3000, 4000}) {
		t.Errorf("it goes on at %v, %v", offsets, err)
	}
	o.Again = func(at Position, _ error) (io.Reader, error) { return bytes.NewReader(make([]byte, 1024)), nil }
	if _, err := Put(t.Context(), cutAfter(whole, 5000), dir+"/h", o); err == nil {
		t.Error("a file that has vanished is copied")
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 2 {
		t.Errorf("%v", entries)
	}
}

// TestLiesAboutAnOffset takes no rest of what has not begun so.
func TestLiesAboutAnOffset(t *testing.T) {
	one := func(record string, size int64) []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		h := &tar.Header{Typeflag: tar.TypeReg, Name: "f", Size: size, Mode: 0o600, Format: tar.FormatPAX}
		if record != "" {
			h.PAXRecords = map[string]string{offsetRecord: record}
		}
		if err := errors.Join(w.WriteHeader(h), errOf(w.Write(make([]byte, size))), w.Close()); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	whole := one("", 2000)
	for name, c := range map[string]struct {
		first, then []byte
		ok          bool
	}{
		"the truth":                     {whole[:1512], one("1000", 1000), true},
		"all again":                     {whole[:1512], one("", 10), true},
		"another offset":                {whole[:1512], one("900", 1100), false},
		"another size":                  {whole[:1512], one("1000", 1001), false},
		"no number":                     {whole[:1512], one("x", 1000), false},
		"a negative one":                {whole[:1512], one("-1", 1000), false},
		"a number that is none":         {whole[:1512], one("99999999999999999999", 1000), false},
		"an offset before any began":    {one("10", 10), nil, false},
		"an offset after a cut between": {nil, one("10", 10), false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			again := 0
			_, err := Unpack(t.Context(), cutAfter(append(c.first, 0), len(c.first)), dir, PutOptions{Again: func(Position, error) (io.Reader, error) {
				if again++; again > 1 {
					return nil, errCut
				}
				return bytes.NewReader(c.then), nil
			}})
			if (err == nil) != c.ok || !c.ok && !errors.Is(err, ErrUnsafe) {
				t.Error(err)
			}
			if left, _ := filepath.Glob(dir + "/.copy-*"); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

func errOf(_ int, err error) error { return err }

func TestCompare(t *testing.T) {
	for name, c := range map[string]struct {
		change func(dir string) error
		want   wire.Name
	}{
		"all":                 {func(string) error { return nil }, "z"},
		"more":                {func(dir string) error { return os.WriteFile(dir+"/a/more", nil, 0o600) }, "z"},
		"one is away":         {func(dir string) error { return os.Remove(dir + "/a.b/\xff") }, "a-/empty"},
		"one is shorter":      {func(dir string) error { return os.Truncate(dir+"/last", 10) }, "a.b/\xff"},
		"one is newer":        {func(dir string) error { return os.Chtimes(dir+"/last", time.Time{}, time.Now().Add(time.Hour)) }, "a.b/\xff"},
		"a link elsewhere":    {func(dir string) error { return errors.Join(os.Remove(dir+"/a/link"), os.Symlink("x", dir+"/a/link")) }, "a/deep/f"},
		"a copy for a link":   {func(dir string) error { return errors.Join(os.Remove(dir+"/z"), os.WriteFile(dir+"/z", nil, 0o600)) }, "last"},
		"a directory":         {func(dir string) error { return errors.Join(os.Remove(dir+"/last"), os.Mkdir(dir+"/last", 0o700)) }, "a.b/\xff"},
		"nothing":             {os.RemoveAll, ""},
		"a link to elsewhere": {func(dir string) error { return errors.Join(os.RemoveAll(dir+"/a-"), os.Symlink("/etc", dir+"/a-")) }, "a/link"},
	} {
		t.Run(name, func(t *testing.T) {
			dir, target := small(t), filepath.Join(t.TempDir(), "x")
			if _, err := Put(t.Context(), bytes.NewReader(packed(t, dir, PackOptions{Name: "."})), target, PutOptions{}); err != nil {
				t.Fatal(err)
			}
			if err := c.change(target); err != nil {
				t.Fatal(err)
			}
			have, err := Compare(t.Context(), bytes.NewReader(packed(t, dir, PackOptions{Name: ".", Heads: true})), target, PutOptions{Exact: true})
			if err != nil || have != c.want {
				t.Fatalf("%q, %v, want %q", have, err, c.want)
			}
			rest := packed(t, dir, PackOptions{Name: ".", Have: have})
			if _, err := Put(t.Context(), bytes.NewReader(rest), target, PutOptions{Exact: true}); name == "a link to elsewhere" || name == "a directory" {
				if err == nil {
					t.Error("what is in the way is no error")
				}
				return
			} else if err != nil {
				t.Fatal(err)
			}
			os.Remove(target + "/a/more")
			got, want := looks(t, target), looks(t, dir)
			if name == "more" {
				os.Chtimes(target+"/a", time.Time{}, time.Unix(1e9, 5))
				got = looks(t, target)
			}
			if !slices.Equal(got, want) {
				t.Errorf("\n%q\n%q", got, want)
			}
		})
	}
	if _, err := Compare(t.Context(), strings.NewReader(""), t.TempDir(), PutOptions{}); !errors.Is(err, ErrUnsafe) {
		t.Errorf("nothing: %v", err)
	}
	if have, err := Compare(t.Context(), bytes.NewReader(packed(t, "/etc/passwd", PackOptions{Name: ".", Heads: true})), "/etc/passwd", PutOptions{Exact: true}); err != nil || have != "" {
		t.Errorf("one file: %q, %v", have, err)
	}
}

// FuzzBefore holds the order of names against that of Pack.
func FuzzBefore(f *testing.F) {
	f.Add("a/b", "a.b")
	f.Add(".", "a")
	f.Add("a", "a/b")
	f.Fuzz(func(t *testing.T, a, b string) {
		clean := func(s string) string {
			s = strings.Trim(filepath.Clean("/"+strings.ReplaceAll(s, "\x00", "")), "/")
			if s == "" {
				return "."
			}
			return s
		}
		a, b = clean(a), clean(b)
		parts := func(s string) []string {
			if s == "." {
				return nil
			}
			return strings.Split(s, "/")
		}
		if got, want := before(a, wire.Name(b)), slices.Compare(parts(a), parts(b)) <= 0; got != want {
			t.Errorf("before(%q, %q) is %v", a, b, got)
		}
	})
}
