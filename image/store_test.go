//go:build linux

package image_test

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/compression"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/image"
	"github.com/tangle-network/microvm-runtime/internal/imagestore"
	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
)

// Ten callers in two processes get an image that is downloaded and built once.
func TestBuiltOnce(t *testing.T) {
	h := newHub(t)
	_, dir := storeIn(t)
	reference := h.push(t, "app:v1", simple(t))
	h.answering(func(http.ResponseWriter, *http.Request) bool {
		time.Sleep(5 * time.Millisecond) // so that all are there before the first is done
		return false
	})
	o := order{Store: dir, Pull: reference, Calls: 5}
	first, second := o.start(t), o.start(t)
	lines := slices.Concat(first()[:5], second()[:5])
	for _, line := range lines {
		if line != lines[0] || !strings.HasPrefix(line, "sha256:") {
			t.Errorf("%s\n%s", line, lines[0])
		}
	}
	layers, err := simple(t).Layers()
	for _, l := range must(t, layers, err) {
		digest, err := l.Digest()
		if n := len(h.asked(must(t, digest, err).String())); n != 1 {
			t.Errorf("%s was downloaded %d times", digest, n)
		}
	}
	if names := left(t, dir); len(names) != 3 {
		t.Errorf("%q is left", names)
	}
}

// A process that is killed while it builds leaves nothing that a later call or a prune does not remove.
func TestKilledWhileBuilding(t *testing.T) {
	h := newHub(t)
	s, dir := storeIn(t)
	img, content, digest := large(t)
	reference := h.push(t, "app:v1", img)
	ctx, kill := context.WithCancel(t.Context())
	h.answering(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, digest) {
			return false
		}
		w.Write(content[:500_000])
		http.NewResponseController(w).Flush()
		for len(left(t, dir)) == 0 || allocated(t, dir) == 0 {
			time.Sleep(time.Millisecond)
		}
		kill()
		<-r.Context().Done()
		return true
	})
	startAndKill(t, ctx, order{Store: dir, Pull: reference, Calls: 1})
	building, err := os.ReadDir(filepath.Join(dir, "building"))
	if building = must(t, building, err); len(building) != 1 {
		t.Errorf("it was not building: %v", building)
	}
	if p, err := s.Prune(t.Context(), nil); err != nil || p.Bytes == 0 {
		t.Errorf("%+v, %v", p, err)
	}
	if names := left(t, dir); slices.ContainsFunc(names, func(n string) bool { return !strings.HasPrefix(n, "locks/") }) {
		t.Errorf("%q is left", names)
	}
	h.answering(nil)
	pull(t, s, reference)
	if names := left(t, dir); len(names) != 3 {
		t.Errorf("%q is left", names)
	}
}

// link makes a base somebody's own, as the driver does.
func link(t testing.TB, dir, reference string) string {
	t.Helper()
	entry, err := imagestore.Lookup(dir, reference)
	path := filepath.Join(t.TempDir(), "base")
	if err := entry.Link(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	must(t, entry, err)
	return path
}

func TestRemove(t *testing.T) {
	h := newHub(t)
	s, dir := storeIn(t)
	reference, again := h.push(t, "app:v1", simple(t)), h.push(t, "app:v2", simple(t))
	got := pull(t, s, reference)
	pull(t, s, again)
	if err := s.Remove(t.Context(), reference); err != nil {
		t.Error(err)
	}
	if left, err := s.Get(again); err != nil || !slices.Equal(left.References, []string{again}) || left.Path != got.Path {
		t.Errorf("one of two names is gone, and the image is %+v, %v", left, err)
	}
	if err := s.Remove(t.Context(), reference); !errors.Is(err, microvm.ErrNotFound) {
		t.Error("once more:", err)
	}
	linked := link(t, dir, again)
	if used, err := s.Get(again); err != nil || !used.InUse {
		t.Errorf("it is linked: %+v, %v", used, err)
	}
	if err := s.Remove(t.Context(), again); err != nil {
		t.Error(err)
	}
	isEmpty(t, "all names are gone", dir)
	if e := open(t, linked); e.content("/d/y") != "upper" {
		t.Error("who had the base has it no more")
	}
	pull(t, s, reference)
	pull(t, s, again)
	if err := s.Remove(t.Context(), got.Digest[7:19]); err != nil {
		t.Error(err)
	}
	isEmpty(t, "it was removed by its digest", dir)
}

func TestPrune(t *testing.T) {
	h := newHub(t)
	s, dir := storeIn(t)
	var made []image.Image
	for _, name := range []string{"named", "used", "nameless", "moved"} {
		made = append(made, pull(t, s, h.push(t, name, imageOf(t, nil, layerOf(t, tarOf(t, file(name, name)), compression.GZip)))))
	}
	h.push(t, "nameless", simple(t))
	h.push(t, "moved", simple(t))
	pull(t, s, h.host+"/nameless")
	pull(t, s, h.host+"/moved")
	linked := link(t, dir, made[3].Digest)
	p, err := s.Prune(t.Context(), nil)
	if err != nil || len(p.Images) != 1 || p.Images[0].Digest != made[2].Digest || p.Bytes == 0 {
		t.Errorf("%+v, %v", p, err)
	}
	if _, err := s.Get(made[3].Digest); err != nil {
		t.Error("a nameless image that is in use:", err)
	}
	if err := os.Remove(linked); err != nil {
		t.Fatal(err)
	}
	linked = link(t, dir, h.host+"/used")
	p, err = s.Prune(t.Context(), func(i image.Image) bool { return slices.Contains(i.References, h.host+"/named:latest") })
	if err != nil || len(p.Images) != 2 {
		t.Errorf("%+v, %v", p, err)
	}
	if all, err := s.List(); err != nil || len(all) != 2 {
		t.Errorf("%+v, %v", all, err)
	}
	if e := open(t, linked); e.content("/used") != "used" {
		t.Error("what is in use was harmed")
	}
}

// A prune takes nothing from who is pulling.
func TestPruneWhilePulling(t *testing.T) {
	h := newHub(t)
	s, _ := storeIn(t)
	img, _, digest := large(t)
	reference := h.push(t, "app:v1", img)
	pruned := 0
	h.answering(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, digest) {
			if p, err := s.Prune(t.Context(), func(image.Image) bool { return false }); err != nil || len(p.Images) != 0 {
				t.Errorf("%+v, %v", p, err)
			}
			pruned++
		}
		return false
	})
	pull(t, s, reference)
	if pruned != 1 {
		t.Errorf("it was pruned %d times, and asked for once more each time", pruned)
	}
}

func TestVerify(t *testing.T) {
	h := newHub(t)
	s, _ := storeIn(t)
	got := pull(t, s, h.push(t, "app:v1", simple(t)))
	if err := s.Verify(t.Context(), got.Digest); err != nil {
		t.Error(err)
	}
	f, err := os.OpenFile(got.Path, os.O_WRONLY, 0)
	if errors.Is(err, os.ErrPermission) {
		err = os.Chmod(got.Path, 0o644)
		f, _ = os.OpenFile(got.Path, os.O_WRONLY, 0)
	}
	f = must(t, f, err)
	_, err = f.WriteAt([]byte{1}, got.Size-1)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(t.Context(), got.Digest); !errors.Is(err, image.ErrDigest) {
		t.Error("a byte is another:", err)
	}
	if err := s.Verify(t.Context(), "none"); !errors.Is(err, microvm.ErrNotFound) {
		t.Error(err)
	}
	if err := s.Verify(t.Context(), got.Path); !errors.Is(err, microvm.ErrInvalid) {
		t.Error("a path:", err)
	}
	if err := errors.Join(os.Truncate(got.Path, 100)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(got.Digest); !errors.Is(err, imagestore.ErrDamaged) {
		t.Error("a base that is too short:", err)
	}
	if all, err := s.List(); !errors.Is(err, imagestore.ErrDamaged) || len(all) != 0 {
		t.Errorf("%+v, %v", all, err)
	}
	again := pull(t, s, got.References[0])
	if err := s.Verify(t.Context(), again.Digest); err != nil || again.SHA256 != got.SHA256 {
		t.Errorf("it is pulled again, %+v, %v", again, err)
	}
}

// A disk that has no room is told before anything is written, and one that gets full leaves nothing.
func TestHostFullDisk(t *testing.T) {
	ring.Host(t)
	h := newHub(t)
	dir := filepath.Join(t.TempDir(), "small")
	if err := errors.Join(os.Mkdir(dir, 0o700), syscall.Mount("microvm-test", dir, "tmpfs", 0, "size=8m,mode=0700")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	s := openStore(t, dir)
	fits := h.push(t, "app:fits", imageOf(t, nil, layerOf(t, tarOf(t, file("x", noise(1<<20))), compression.GZip)))
	if err := s.Remove(t.Context(), pull(t, s, fits).Digest); err != nil {
		t.Fatal(err)
	}
	large := h.push(t, "app:large", imageOf(t, nil, layerOf(t, tarOf(t, file("x", noise(10<<20))), compression.GZip)))
	h.answering(nil)
	if _, err := s.Pull(t.Context(), large, amd64); !errors.Is(err, microvm.ErrExhausted) || errors.Is(err, syscall.ENOSPC) {
		t.Error("a layer that is too large:", err)
	}
	if n := len(h.asked("/blobs/")); n != 1 { // the configuration
		t.Errorf("%d blobs were asked for", n)
	}
	isEmpty(t, "no room for the layer", dir)
	zeros := h.push(t, "app:zeros", imageOf(t, nil, layerOf(t, tarOf(t, file("x", strings.Repeat("x", 16<<20))), compression.GZip)))
	if _, err := s.Pull(t.Context(), zeros, amd64); !errors.Is(err, microvm.ErrExhausted) || errors.Is(err, syscall.ENOSPC) {
		t.Error("a base that is too large:", err)
	}
	if _, err := s.Prune(t.Context(), nil); err != nil { // the layer is worth keeping
		t.Error(err)
	}
	isEmpty(t, "no room for the base", dir)
	// What is not known before: a directory's tar.
	tree := t.TempDir()
	write(t, filepath.Join(tree, "x"), []byte(noise(12<<20)))
	if _, err := s.Import(t.Context(), tree, "x", nil); !errors.Is(err, microvm.ErrExhausted) || !errors.Is(err, syscall.ENOSPC) {
		t.Error("a directory that is too large:", err)
	}
	isEmpty(t, "the disk got full", dir)
	pull(t, s, fits)
}

// A store that nothing was put into is empty, and reading it makes nothing.
func TestEmptyStore(t *testing.T) {
	s, dir := storeIn(t)
	images, err := s.List()
	p, err2 := s.Prune(t.Context(), nil)
	if err := errors.Join(err, err2); err != nil || len(images) != 0 || len(p.Images) != 0 || p.Bytes != 0 {
		t.Errorf("%v, %+v, %v", images, p, err)
	}
	if err := s.Remove(t.Context(), "x"); !errors.Is(err, microvm.ErrNotFound) {
		t.Error(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Error("it was made:", err)
	}
}
