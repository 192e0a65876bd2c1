//go:build linux

package image_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-containerregistry/pkg/compression"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/klauspost/compress/zstd"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/image"
)

// importAs imports for linux/amd64.
func importAs(t testing.TB, s *image.Store, path, name string) image.Image {
	t.Helper()
	made, err := s.Import(t.Context(), path, name, &image.ImportOptions{Platform: "linux/amd64"})
	return must(t, made, err)
}

func write(t testing.TB, path string, content []byte) string {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, content, 0o644)); err != nil {
		t.Fatal(err)
	}
	return path
}

func gzipped(t testing.TB, content []byte) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write(content); err != nil {
		t.Fatal(err)
	}
	z.Close()
	return b.Bytes()
}

func zstandard(t testing.TB, content []byte) []byte {
	e, err := zstd.NewWriter(nil)
	e = must(t, e, err)
	defer e.Close()
	return e.EncodeAll(content, nil)
}

// tarDir makes a tar of a directory.
func tarDir(t testing.TB, dir string) []byte {
	t.Helper()
	out, err := exec.Command("tar", "-C", dir, "-c", ".").Output()
	return must(t, out, err)
}

// savedTar is a tar as docker save writes it: layers in directories, those that are the same as links.
func savedTar(t testing.TB, img v1.Image, tags ...string) []byte {
	t.Helper()
	config, err := img.RawConfigFile()
	config = must(t, config, err)
	layers, err := img.Layers()
	layers = must(t, layers, err)
	var entries []entry
	var names []string
	for i, l := range layers {
		r, err := l.Uncompressed()
		content, err := io.ReadAll(must(t, r, err))
		content = must(t, content, err)
		id := fmt.Sprintf("%064d", i)
		names = append(names, id+"/layer.tar")
		entries = append(entries, dir(id+"/"), file(id+"/VERSION", "1.0"), file(id+"/layer.tar", string(content)))
		if i > 0 && bytes.Equal(content, []byte(entries[2].content)) {
			entries[len(entries)-1] = symlink(id+"/layer.tar", "../"+names[0])
		}
	}
	manifest, err := json.Marshal([]map[string]any{{"Config": "config.json", "RepoTags": tags, "Layers": names}})
	entries = append(entries, file("config.json", string(config)), file("manifest.json", string(must(t, manifest, err))), file("repositories", "{}"))
	return tarOf(t, entries...)
}

// TestImport makes the same of an image in each form that it comes in.
func TestImport(t *testing.T) {
	img := simple(t)
	digest, err := img.Digest()
	digest = must(t, digest, err)
	work := t.TempDir()
	in := func(name string) string { return filepath.Join(work, name) }
	writeLayout(t, in("layout"), "v1", img)
	layoutTar := tarDir(t, in("layout"))
	savedOld := savedTar(t, img, "team/app:v1", "team/app:latest")
	tag, err := name.NewTag("team/app:v1")
	if err := errors.Join(err, tarball.WriteToFile(in("crane.tar"), tag, img)); err != nil {
		t.Fatal(err)
	}
	write(t, in("saved-dir/.keep"), nil)
	if out, err := exec.Command("tar", "-C", in("saved-dir"), "-xf", write(t, in("saved.tar"), savedOld)).CombinedOutput(); err != nil {
		t.Fatalf("tar: %v: %s", err, out)
	}
	known := digest.String()
	for name, c := range map[string]struct {
		path   string
		digest string   // "" for one of docker save's, which has no manifest.
		own    []string // References when none is given.
	}{
		"layout":              {in("layout"), known, nil},
		"layout, tar":         {write(t, in("layout.tar"), layoutTar), known, nil},
		"layout, gzip":        {write(t, in("layout.tgz"), gzipped(t, layoutTar)), known, nil},
		"layout, zstd":        {write(t, in("layout.tar.zst"), zstandard(t, layoutTar)), known, nil},
		"docker save":         {in("saved.tar"), "", []string{"team/app:latest", "team/app:v1"}},
		"docker save, gzip":   {write(t, in("saved.tgz"), gzipped(t, savedOld)), "", []string{"team/app:latest", "team/app:v1"}},
		"docker save, a dir":  {in("saved-dir"), "", []string{"team/app:latest", "team/app:v1"}},
		"crane, gzipped ones": {in("crane.tar"), "", []string{"team/app:v1"}},
	} {
		t.Run(name, func(t *testing.T) {
			s, store := storeIn(t)
			got := importAs(t, s, c.path, "mine")
			if c.digest != "" && got.Digest != c.digest || !slices.Equal(got.References, []string{"mine:latest"}) || got.Platform != "linux/amd64" || got.Config.User != "1000:1000" {
				t.Errorf("%+v", got)
			}
			if e := open(t, got.Path); e.content("/d/y") != "upper" || e.stat("/d/x") != "" || e.content("/big") != noise(300<<10) {
				t.Error("it is another file system")
			}
			if names := left(t, store); len(names) != 3 {
				t.Errorf("%q is left", names)
			}
			s, _ = storeIn(t)
			own, err := s.Import(t.Context(), c.path, "", &image.ImportOptions{Platform: "linux/amd64"})
			if c.own == nil {
				if !errors.Is(err, microvm.ErrInvalid) {
					t.Errorf("without a name: %+v, %v", own, err)
				}
			} else if err != nil || !slices.Equal(own.References, c.own) || own.Digest != got.Digest {
				t.Errorf("without a name: %+v, %v", own, err)
			}
		})
	}
}

// Layers that are the same are there once in what docker save writes.
func TestImportSavedLinks(t *testing.T) {
	s, _ := storeIn(t)
	layer := layerOf(t, tarOf(t, file("x", "x")), compression.GZip)
	path := write(t, filepath.Join(t.TempDir(), "saved.tar"), savedTar(t, imageOf(t, nil, layer, layerOf(t, tarOf(t, file("y", "y")), compression.GZip), layer)))
	if e := open(t, importAs(t, s, path, "mine").Path); e.content("/x") != "x" || e.content("/y") != "y" {
		t.Error("it is another file system")
	}
}

// A root file system is the same image however it is compressed, and its names are no whiteouts.
func TestImportRootfs(t *testing.T) {
	work := t.TempDir()
	content := tarOf(t, dir("./"), file("./bin", "b"), file("./.wh.bin", "a name like others"), file("./manifest.json", `{"not": "docker's"}`), file("./index.json", "{}"))
	config := &image.Config{Entrypoint: []string{"/bin"}, Env: []string{"A=b"}, ExposedPorts: []string{"80/tcp"}, Labels: map[string]string{"k": "v"}, User: "joe", WorkingDir: "/w", StopSignal: "SIGHUP", Cmd: []string{"x"}}
	digests := map[string]bool{}
	s, store := storeIn(t)
	for name, text := range map[string][]byte{"plain": content, "gzip": gzipped(t, content), "zstd": zstandard(t, content)} {
		got, err := s.Import(t.Context(), write(t, filepath.Join(work, name), text), name, &image.ImportOptions{Config: config, Platform: "linux/arm64"})
		if err != nil {
			t.Fatal(name, err)
		}
		digests[got.Digest] = true
		if !reflect.DeepEqual(got.Config, *config) || got.Platform != "linux/arm64" {
			t.Errorf("%+v", got)
		}
		if e := open(t, got.Path); e.content("/bin") != "b" || e.content("/.wh.bin") != "a name like others" {
			t.Error("it is another file system")
		}
	}
	if len(digests) != 1 {
		t.Errorf("%d images of one file system", len(digests))
	}
	found, err := s.Get("gzip")
	if found = must(t, found, err); !slices.Equal(found.References, []string{"gzip:latest", "plain:latest", "zstd:latest"}) {
		t.Errorf("%+v", found)
	}
	other, err := s.Import(t.Context(), filepath.Join(work, "plain"), "other", nil)
	if other = must(t, other, err); digests[other.Digest] {
		t.Error("another configuration is the same image")
	}
	if names := left(t, store); len(names) != 5 {
		t.Errorf("%q is left", names)
	}
}

func TestImportDirectory(t *testing.T) {
	tree := t.TempDir()
	write(t, filepath.Join(tree, "etc/os-release"), []byte("ID=x\n"))
	if err := errors.Join(os.Link(filepath.Join(tree, "etc/os-release"), filepath.Join(tree, "release")), os.Symlink("etc", filepath.Join(tree, "link"))); err != nil {
		t.Fatal(err)
	}
	s, store := storeIn(t)
	var last image.Progress
	got, err := s.Import(t.Context(), tree, "dir:1", &image.ImportOptions{Config: &image.Config{Cmd: []string{"sh"}}, Progress: func(p image.Progress) { last = p }})
	if err != nil || last.Stage != image.StageBuild || last.Done != last.Total {
		t.Fatal(err, last)
	}
	e := open(t, got.Path)
	if e.content("/release") != "ID=x\n" {
		t.Error("it is another file system")
	}
	e.has("/release", "Links: 2")
	if again := importAs(t, s, tree, "dir:1"); again.Digest == got.Digest {
		t.Error("without the configuration it is the same image")
	}
	if again, err := s.Import(t.Context(), tree, "dir:1", &image.ImportOptions{Config: &image.Config{Cmd: []string{"sh"}}}); err != nil || again.Path != got.Path {
		t.Errorf("once more: %+v, %v", again, err)
	}
	if names := left(t, store); len(names) != 5 {
		t.Errorf("%q is left", names)
	}
}

// A source that can be read only once is copied first.
func TestImportPipe(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	content := gzipped(t, savedTar(t, simple(t), "team/app:v1"))
	wrote := make(chan error, 1)
	go func() { wrote <- os.WriteFile(fifo, content, 0) }()
	s, store := storeIn(t)
	got, err := s.Import(t.Context(), fifo, "", &image.ImportOptions{Platform: "linux/amd64"})
	if err := errors.Join(err, <-wrote); err != nil {
		t.Fatal(err)
	}
	if e := open(t, got.Path); e.content("/d/y") != "upper" {
		t.Error("it is another file system")
	}
	if names := left(t, store); len(names) != 3 {
		t.Errorf("%q is left", names)
	}
}

// Of several images one is selected.
func TestImportSelects(t *testing.T) {
	work := t.TempDir()
	one, two := imageOf(t, nil, layerOf(t, tarOf(t, file("one", "1")), compression.GZip)), imageOf(t, nil, layerOf(t, tarOf(t, file("two", "2")), compression.GZip))
	writeLayout(t, filepath.Join(work, "layout"), "one", one)
	l, err := layout.FromPath(filepath.Join(work, "layout"))
	if err := errors.Join(err, l.AppendImage(two, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": "2", "io.containerd.image.name": "docker.io/library/two:2"}))); err != nil {
		t.Fatal(err)
	}
	images := map[name.Reference]v1.Image{}
	for text, img := range map[string]v1.Image{"one": one, "docker.io/library/two:2": two} {
		tag, err := name.NewTag(text, name.WithDefaultTag("1"))
		images[must(t, tag, err)] = img
	}
	if err := tarball.MultiRefWriteToFile(filepath.Join(work, "saved.tar"), images); err != nil {
		t.Fatal(err)
	}
	s, _ := storeIn(t)
	for path, names := range map[string][]string{"layout": {"one", "two:2"}, "saved.tar": {"one", "docker.io/library/two:2"}} {
		if _, err := s.Import(t.Context(), filepath.Join(work, path), "x", &image.ImportOptions{Platform: "linux/amd64"}); !errors.Is(err, microvm.ErrInvalid) || !strings.Contains(err.Error(), "two:2") {
			t.Errorf("%s without a selection: %v", path, err)
		}
		for i, name := range names {
			got, err := s.Import(t.Context(), filepath.Join(work, path), "x", &image.ImportOptions{Platform: "linux/amd64", Select: name})
			if err != nil {
				t.Errorf("%s %s: %v", path, name, err)
				continue
			}
			want := []string{"one", "two"}[i]
			if e := open(t, got.Path); e.content("/"+want) != fmt.Sprint(i+1) {
				t.Errorf("%s %s is another image", path, name)
			}
		}
	}
	if got, err := s.Import(t.Context(), filepath.Join(work, "layout"), "", &image.ImportOptions{Platform: "linux/amd64", Select: "2"}); err != nil || !slices.Contains(got.References, "two:2") {
		t.Errorf("containerd's name: %+v, %v", got, err)
	}
}

// What GNU tar makes of holes are zeros.
func TestImportSparse(t *testing.T) {
	s, _ := storeIn(t)
	for _, format := range []string{"gnu", "posix"} {
		got := importAs(t, s, write(t, filepath.Join(t.TempDir(), "x.tar"), sparseLayer(t, format)), format)
		want := make([]byte, 9<<20+1)
		for _, offset := range []int{0, 1 << 20, 5<<20 + 123} {
			copy(want[offset:], "data at "+fmt.Sprint(offset))
		}
		if open(t, got.Path).content("/sparse-"+format) != string(want) {
			t.Error(format, "is another file")
		}
		var stat syscall.Stat_t
		if err := syscall.Stat(got.Path, &stat); err != nil || stat.Blocks*512 > got.Size/4 {
			t.Errorf("%s: %d bytes on disk of %d, %v", format, stat.Blocks*512, got.Size, err)
		}
	}
}

func TestImportRefuses(t *testing.T) {
	work := t.TempDir()
	s, store := storeIn(t)
	rootfs := write(t, filepath.Join(work, "rootfs.tar"), tarOf(t, file("x", "x")))
	saved := write(t, filepath.Join(work, "saved.tar"), savedTar(t, simple(t)))
	damaged := filepath.Join(work, "damaged")
	writeLayout(t, damaged, "v1", simple(t))
	layer, err := simple(t).Layers()
	digest, err2 := must(t, layer, err)[0].Digest()
	blob := filepath.Join(damaged, "blobs/sha256", must(t, digest, err2).Hex)
	content, err := os.ReadFile(blob)
	content = must(t, content, err)
	content[len(content)/2] ^= 1
	write(t, blob, content)
	missing := filepath.Join(work, "missing")
	writeLayout(t, missing, "v1", simple(t))
	if err := os.Remove(filepath.Join(missing, "blobs/sha256", digest.Hex)); err != nil {
		t.Fatal(err)
	}
	outside := filepath.Join(work, "outside")
	writeLayout(t, outside, "v1", simple(t))
	if err := errors.Join(os.Remove(filepath.Join(outside, "index.json")), os.Symlink("/etc/passwd", filepath.Join(outside, "index.json"))); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		path, name string
		options    image.ImportOptions
		want       error
	}{
		"allowed":                    {rootfs, "x", image.ImportOptions{}, nil},
		"no such file":               {filepath.Join(work, "none"), "x", image.ImportOptions{}, microvm.ErrInvalid},
		"no name":                    {rootfs, "", image.ImportOptions{}, microvm.ErrInvalid},
		"a bad name":                 {rootfs, "X", image.ImportOptions{}, microvm.ErrInvalid},
		"a digest as name":           {rootfs, "x@sha256:" + strings.Repeat("0", 64), image.ImportOptions{}, microvm.ErrInvalid},
		"a bad platform":             {rootfs, "x", image.ImportOptions{Platform: "plan9/amd64"}, microvm.ErrInvalid},
		"another platform":           {saved, "x", image.ImportOptions{Platform: "linux/arm64"}, microvm.ErrIncompatible},
		"no tar":                     {write(t, filepath.Join(work, "text"), []byte(strings.Repeat("text ", 1000))), "x", image.ImportOptions{}, image.ErrMalformed},
		"an empty gzip":              {write(t, filepath.Join(work, "half"), gzipped(t, tarOf(t, file("x", block)))[:30]), "x", image.ImportOptions{}, image.ErrMalformed},
		"too large":                  {rootfs, "x", image.ImportOptions{Limits: image.Limits{Bytes: 1000}}, image.ErrLimit},
		"a directory too large":      {work, "x", image.ImportOptions{Limits: image.Limits{Bytes: 1000}}, image.ErrLimit},
		"a directory as tar":         {work, "x", image.ImportOptions{Format: image.FormatTar}, microvm.ErrInvalid},
		"a tar as directory":         {rootfs, "x", image.ImportOptions{Format: image.FormatDirectory}, microvm.ErrInvalid},
		"a tar as layout":            {rootfs, "x", image.ImportOptions{Format: image.FormatOCI}, image.ErrMalformed},
		"a tar as docker's":          {rootfs, "x", image.ImportOptions{Format: image.FormatDocker}, image.ErrMalformed},
		"an unknown format":          {rootfs, "x", image.ImportOptions{Format: "zip"}, microvm.ErrInvalid},
		"a configuration too many":   {saved, "x", image.ImportOptions{Platform: "linux/amd64", Config: &image.Config{}}, microvm.ErrInvalid},
		"a selection of nothing":     {saved, "x", image.ImportOptions{Platform: "linux/amd64", Select: "y"}, microvm.ErrInvalid},
		"a damaged layer":            {damaged, "x", image.ImportOptions{Platform: "linux/amd64"}, errAny},
		"a missing layer":            {missing, "x", image.ImportOptions{Platform: "linux/amd64"}, image.ErrMalformed},
		"a layout that leads out":    {outside, "x", image.ImportOptions{Format: image.FormatOCI}, errAny},
		"docker's without its layer": {write(t, filepath.Join(work, "lacks.tar"), tarOf(t, file("manifest.json", `[{"Config":"c","Layers":["l"]}]`), file("c", `{"rootfs":{"diff_ids":["sha256:`+strings.Repeat("0", 64)+`"]}}`))), "x", image.ImportOptions{}, image.ErrMalformed},
		"docker's link to itself":    {write(t, filepath.Join(work, "loops.tar"), tarOf(t, file("manifest.json", `[{"Config":"c","Layers":[]}]`), symlink("c", "c"))), "x", image.ImportOptions{}, image.ErrMalformed},
	} {
		got, err := s.Import(t.Context(), c.path, c.name, &c.options)
		if c.want == nil {
			err = errors.Join(err, s.Remove(t.Context(), got.Digest))
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		} else if err == nil || c.want != errAny && !errors.Is(err, c.want) {
			t.Errorf("%s: %+v, %v, want %v", name, got, err, c.want)
		}
		isEmpty(t, name, store)
	}
}
