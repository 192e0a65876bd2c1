//go:build linux

package tree_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/tangle-network/microvm-runtime/internal/tree"
)

// meanwhile calls f again and again until the returned function is called.
func meanwhile(f func(i int)) (stop func()) {
	ended, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ; i++ {
			select {
			case <-ended:
				return
			default:
				f(i)
			}
		}
	}()
	return sync.OnceFunc(func() {
		close(ended)
		<-done
	})
}

// Somebody puts links that lead out in the place of the directories that are unpacked.
func TestUnpackAgainstARace(t *testing.T) {
	w := newWorld(t)
	content := tarOf(t, dir("a"), file("a/f", "f"), dir("a/b"), file("a/b/f", "f"), link(tar.TypeLink, "a/b/l", "a/f"), link(tar.TypeSymlink, "a/s", "f"), dir("a").with(func(h *tar.Header) { h.Mode = 0o777 }))
	a, moved := filepath.Join(w.target, "a"), filepath.Join(w.target, "moved")
	stop := meanwhile(func(i int) {
		os.Rename(a, moved)
		os.Symlink("../outside", a)
		os.Remove(a)
		os.RemoveAll(moved)
	})
	defer stop()
	good, refused := 0, 0
	for range 2000 {
		_, err := tree.Unpack(t.Context(), bytes.NewReader(content), w.target, tree.PutOptions{})
		switch {
		case err == nil:
			good++
		case errors.Is(err, tree.ErrUnsafe):
			refused++
		}
	}
	stop()
	if entries, err := os.ReadDir(filepath.Join(w.around, "outside")); err != nil || len(entries) != 0 {
		t.Errorf("outside are %v, %v", entries, err)
	}
	if info, err := os.Stat(filepath.Join(w.around, "outside")); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("outside is %v, %v", info, err)
	}
	t.Logf("%d were good, %d refused", good, refused)
}

// Somebody puts a link to a secret, and a named pipe that nobody writes to, in the place of the files that are packed.
func TestPackAgainstARace(t *testing.T) {
	w := newWorld(t)
	f, other := filepath.Join(w.target, "f"), filepath.Join(w.target, "other")
	put := func(i int) error {
		os.Remove(other)
		switch i % 3 {
		case 0:
			return errors.Join(os.Symlink("../secret", other), os.Rename(other, f))
		case 1:
			return errors.Join(syscall.Mkfifo(other, 0o600), os.Rename(other, f))
		}
		return errors.Join(os.WriteFile(other, []byte("public"), 0o600), os.Rename(other, f))
	}
	if err := put(2); err != nil {
		t.Fatal(err)
	}
	stop := meanwhile(func(i int) { put(i) })
	defer stop()
	for range 2000 {
		var b bytes.Buffer
		tree.Pack(t.Context(), &b, w.target, tree.PackOptions{Name: ".", Devices: true})
		for r := tar.NewReader(&b); ; {
			if _, err := r.Next(); err != nil {
				break
			}
			if text, _ := io.ReadAll(r); string(text) == "secret" {
				t.Fatal("the secret was packed")
			}
		}
	}
}

func TestPackRefusesWhatIsNoFile(t *testing.T) {
	from := t.TempDir()
	if err := syscall.Mkfifo(filepath.Join(from, "pipe"), 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := tree.Pack(t.Context(), io.Discard, from, tree.PackOptions{Name: "."}); !errors.Is(err, tree.ErrUnsafe) || !strings.Contains(err.Error(), "pipe") {
		t.Error(err)
	}
	var b bytes.Buffer
	if progress, err := tree.Pack(t.Context(), &b, from, tree.PackOptions{Name: ".", Devices: true}); err != nil || progress.Files != 2 {
		t.Error(progress, err)
	}
	to := filepath.Join(t.TempDir(), "to")
	if _, err := tree.Put(t.Context(), &b, to, tree.PutOptions{Devices: true}); err != nil {
		t.Error(err)
	}
	if info, err := os.Lstat(to + "/pipe"); err != nil || info.Mode() != fs.ModeNamedPipe|0o640 {
		t.Error(info, err)
	}
}

// FuzzUnpack is a tar of anybody's.
func FuzzUnpack(f *testing.F) {
	for _, seed := range [][]byte{
		nil, tarOf(f, dir("./"), file("./f", "f"), link(tar.TypeSymlink, "./l", ".."), file("./l/f", "f")), tarOf(f, file("../f", "f")),
		tarOf(f, link(tar.TypeSymlink, "a", "/"), link(tar.TypeLink, "b", "a/etc/passwd"), link(tar.TypeFifo, "p", "")),
		tarOf(f, file(strings.Repeat("f", 200), "f").with(func(h *tar.Header) { h.PAXRecords = map[string]string{"SCHILY.xattr.user.x": "y"} })),
	} {
		f.Add(seed, true)
		f.Add(seed, false)
	}
	f.Fuzz(func(t *testing.T, data []byte, put bool) {
		w := newWorld(t)
		verb := tree.Unpack
		if put {
			verb = tree.Put
		}
		progress, err := verb(t.Context(), bytes.NewReader(data), w.target, tree.PutOptions{Name: "name", Setuid: true, MaxBytes: 1 << 20, MaxFiles: 100})
		if progress.Files > 100 || progress.Bytes > 1<<20 || err != nil && fmt.Sprint(err) == "" {
			t.Errorf("%+v, %v", progress, err)
		}
		w.check()
	})
}
