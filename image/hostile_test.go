//go:build linux

package image_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/compression"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/image"
)

// liar is a registry that serves documents and blobs as it likes.
type liar struct {
	documents map[string][]byte // By what the path ends with.
	blob      func(w http.ResponseWriter, r *http.Request)
	digest    string // Of blob.
}

func (l liar) answer(w http.ResponseWriter, r *http.Request) bool {
	if l.blob != nil && strings.HasSuffix(r.URL.Path, l.digest) {
		l.blob(w, r)
		return true
	}
	for end, text := range l.documents {
		if strings.HasSuffix(r.URL.Path, end) {
			w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
			w.Write(text)
			return true
		}
	}
	return false
}

// manifestOf returns an image's manifest, changed.
func manifestOf(t *testing.T, img v1.Image, change func(m *v1.Manifest)) []byte {
	t.Helper()
	m, err := img.Manifest()
	m = must(t, m, err).DeepCopy()
	if change != nil {
		change(m)
	}
	text, err := json.Marshal(m)
	return must(t, text, err)
}

// endless sends zeros for as long as somebody reads.
func endless(w http.ResponseWriter, _ *http.Request) {
	w.WriteHeader(http.StatusOK)
	for buffer := make([]byte, 64<<10); ; {
		if _, err := w.Write(buffer); err != nil {
			return
		}
	}
}

// What a registry says that isn't so is told by the kind of error, and nothing of it stays.
func TestPullHostile(t *testing.T) {
	h := newHub(t)
	s, dir := storeIn(t)
	img, content, digest := large(t)
	reference := h.push(t, "app:v1", img)
	send := func(text []byte) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, _ *http.Request) { w.Write(text) }
	}
	changed := bytes.Clone(content)
	changed[2000] ^= 1
	config, err := img.ConfigName()
	configPath := "/blobs/" + must(t, config, err).String()
	manifest := func(change func(m *v1.Manifest)) liar {
		return liar{documents: map[string][]byte{"/manifests/v1": manifestOf(t, img, change)}}
	}
	raw := func(text string) liar { return liar{documents: map[string][]byte{"/manifests/v1": []byte(text)}} }
	for name, c := range map[string]struct {
		liar liar
		want error
	}{
		"the truth":               {manifest(nil), nil},
		"the truth, by hand":      {liar{digest: digest, blob: send(content)}, nil},
		"another blob":            {liar{digest: digest, blob: send(changed)}, image.ErrDigest},
		"endless blob":            {liar{digest: digest, blob: endless}, image.ErrDigest},
		"a blob and more":         {liar{digest: digest, blob: send(append(bytes.Clone(content), 0))}, image.ErrDigest},
		"a blob and less":         {liar{digest: digest, blob: send(content[:len(content)-1])}, image.ErrDigest},
		"no blob":                 {liar{digest: digest, blob: send(nil)}, image.ErrDigest},
		"a range of another":      {liar{digest: digest, blob: wrongRange(content)}, image.ErrDigest},
		"more than it said":       {manifest(func(m *v1.Manifest) { m.Layers[0].Size -= 512 }), image.ErrDigest},
		"less than it said":       {manifest(func(m *v1.Manifest) { m.Layers[0].Size += 512 }), image.ErrDigest},
		"a negative size":         {manifest(func(m *v1.Manifest) { m.Layers[0].Size = -1 }), image.ErrMalformed},
		"a size of everything":    {manifest(func(m *v1.Manifest) { m.Layers[0].Size = 1 << 62 }), image.ErrLimit},
		"layers without end":      {manifest(func(m *v1.Manifest) { m.Layers = slices.Repeat(m.Layers, 5000) }), image.ErrLimit},
		"a layer without digest":  {manifest(func(m *v1.Manifest) { m.Layers[0].Digest = v1.Hash{} }), image.ErrMalformed},
		"layers that are unknown": {manifest(func(m *v1.Manifest) { m.Layers = append(m.Layers, m.Layers[0]) }), image.ErrMalformed},
		"an encrypted layer":      {manifest(func(m *v1.Manifest) { m.Layers[0].MediaType += "+encrypted" }), microvm.ErrUnsupported},
		"an artifact":             {manifest(func(m *v1.Manifest) { m.Config.MediaType = "application/vnd.cncf.helm.config.v1+json" }), microvm.ErrUnsupported},
		"another configuration":   {liar{documents: map[string][]byte{configPath: []byte("{}")}}, image.ErrDigest},
		"a large configuration":   {manifest(func(m *v1.Manifest) { m.Config.Size = 1 << 40 }), image.ErrLimit},
		"an endless document":     {liar{digest: "/manifests/v1", blob: endless}, image.ErrLimit},
		"text":                    {raw("hello"), image.ErrMalformed},
		"nothing":                 {raw(""), image.ErrMalformed},
		"an empty object":         {raw("{}"), image.ErrMalformed},
		"version 1":               {raw(`{"schemaVersion":1,"fsLayers":[]}`), image.ErrMalformed},
		"an index of nothing":     {raw(`{"schemaVersion":2,"manifests":[]}`), microvm.ErrIncompatible},
		"an odd index":            {raw(`{"schemaVersion":2,"manifests":{"a":1}}`), image.ErrMalformed},
		"an odd manifest":         {raw(`{"schemaVersion":2,"config":[1],"layers":7}`), image.ErrMalformed},
		"odd digests":             {raw(`{"schemaVersion":2,"config":{"digest":"md5:0","mediaType":"x"},"layers":[]}`), image.ErrMalformed},
		"a path as digest":        {raw(`{"schemaVersion":2,"config":{},"layers":[{"digest":"sha256:../../etc"}]}`), image.ErrMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			h.answering(c.liar.answer)
			got, err := s.Pull(t.Context(), reference, amd64)
			if c.want == nil {
				if err := errors.Join(err, s.Verify(t.Context(), got.Digest), s.Remove(t.Context(), got.Digest)); err != nil {
					t.Error(err)
				}
			} else if !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
			isEmpty(t, name, dir)
		})
	}
}

// wrongRange cuts the first request, and answers the second with a range that nobody asked for.
func wrongRange(content []byte) func(w http.ResponseWriter, r *http.Request) {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Range") == "" {
			w.Header().Set("Content-Length", fmt.Sprint(len(content)))
			w.Write(content[:300_000])
			panic(http.ErrAbortHandler)
		}
		w.Header().Set("Content-Range", fmt.Sprintf("bytes 0-%d/%d", len(content)-1, len(content)))
		w.WriteHeader(http.StatusPartialContent)
		w.Write(content)
	}
}

// An index that names itself, or another within another, ends.
func TestPullIndexesWithoutEnd(t *testing.T) {
	h := newHub(t)
	s, dir := storeIn(t)
	documents := map[string][]byte{}
	inner := []byte(`{"schemaVersion":2,"manifests":[]}`)
	for range 10 {
		hash, size, err := v1.SHA256(bytes.NewReader(inner))
		hash = must(t, hash, err)
		documents["/manifests/"+hash.String()] = inner
		inner = fmt.Appendf(nil, `{"schemaVersion":2,"manifests":[{"mediaType":%q,"digest":%q,"size":%d}]}`, types.OCIImageIndex, hash, size)
	}
	documents["/manifests/latest"] = inner
	h.answering(liar{documents: documents}.answer)
	if _, err := s.Pull(t.Context(), h.host+"/loop", amd64); !errors.Is(err, image.ErrMalformed) {
		t.Error(err)
	}
	isEmpty(t, "indexes", dir)
}

// Layers that would be larger than allowed, lead out, or are no layers at all.
func TestPullHostileLayers(t *testing.T) {
	h := newHub(t)
	s, dir := storeIn(t)
	bomb := func() []byte {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		w := tar.NewWriter(z)
		w.WriteHeader(&tar.Header{Name: "zeros", Size: 64 << 20})
		io.CopyN(w, zero{}, 64<<20)
		w.Close()
		z.Close()
		return b.Bytes()
	}()
	limits := image.Limits{Bytes: 8 << 20, Files: 100, Metadata: 10_000, Layers: 3}
	plain := func(content []byte) v1.Layer { return static.NewLayer(content, types.OCILayer) }
	many := make([]entry, 101)
	for i := range many {
		many[i] = file(fmt.Sprint("f", i), "")
	}
	zipped, err := layerOf(t, tarOf(t, file("x", noise(4000))), compression.GZip).Compressed()
	half, err := io.ReadAll(io.LimitReader(must(t, zipped, err), 2000))
	half = must(t, half, errors.Join(err, zipped.Close()))
	loop := []entry{symlink("a", "b"), symlink("b", "a"), file("a/x", "x")}
	ok := layerOf(t, tarOf(t, file("ok", "ok")), compression.GZip)
	names := strings.Repeat("n", 200)
	for name, c := range map[string]struct {
		layers []v1.Layer
		want   error
	}{
		"allowed":                 {[]v1.Layer{ok, layerOf(t, tarOf(t, many[:99]...), compression.ZStd)}, nil},
		"a bomb":                  {[]v1.Layer{ok, unchecked{plain(bomb)}}, image.ErrLimit},
		"too many files":          {[]v1.Layer{layerOf(t, tarOf(t, many...), compression.GZip)}, image.ErrLimit},
		"too many layers":         {[]v1.Layer{ok, ok, ok, ok}, image.ErrLimit},
		"too much of names":       {[]v1.Layer{layerOf(t, tarOf(t, symlink("l", strings.Repeat(names, 20)), symlink("m", strings.Repeat(names, 20)), symlink("n", strings.Repeat(names, 20))), compression.GZip)}, image.ErrLimit},
		"a loop":                  {[]v1.Layer{layerOf(t, tarOf(t, loop...), compression.GZip)}, image.ErrMalformed},
		"no tar":                  {[]v1.Layer{plain([]byte(strings.Repeat("no tar ", 1000)))}, image.ErrMalformed},
		"half a tar":              {[]v1.Layer{plain(tarOf(t, file("x", block))[:2000])}, image.ErrMalformed},
		"half a gzip":             {[]v1.Layer{plain(half)}, image.ErrMalformed},
		"another DiffID":          {[]v1.Layer{unchecked{plain(tarOf(t, file("x", "x")))}}, image.ErrDigest},
		"a hard link out":         {[]v1.Layer{plain(tarOf(t, hardlink("passwd", "../../../../../etc/passwd")))}, image.ErrMalformed},
		"an ACL that is none":     {[]v1.Layer{plain(tarOf(t, file("x", "x").with(attributes("system.posix_acl_access", "none"))))}, image.ErrMalformed},
		"many attributes":         {[]v1.Layer{plain(tarOf(t, file("x", "x").with(thirteen)))}, microvm.ErrUnsupported},
		"large attributes":        {[]v1.Layer{plain(tarOf(t, file("x", "x").with(attributes("user.x", block))))}, microvm.ErrUnsupported},
		"lost+found is a file":    {[]v1.Layer{plain(tarOf(t, file("lost+found", "x")))}, microvm.ErrUnsupported},
		"a device without number": {[]v1.Layer{plain(tarOf(t, node(tar.TypeChar, "c", 1<<12, 0)))}, image.ErrMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			reference := h.push(t, "app:v1", imageOf(t, nil, c.layers...))
			got, err := s.Pull(t.Context(), reference, &image.PullOptions{Platform: "linux/amd64", Limits: limits})
			if c.want == nil {
				open(t, got.Path)
				if err := errors.Join(err, s.Remove(t.Context(), got.Digest)); err != nil {
					t.Error(err)
				}
			} else if !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
			isEmpty(t, name, dir)
		})
	}
	if _, err := os.Lstat(filepath.Join(dir, "../passwd")); err == nil {
		t.Error("a file is outside")
	}
}

func thirteen(h *tar.Header) {
	h.PAXRecords = map[string]string{}
	for i := range 13 {
		h.PAXRecords[fmt.Sprintf("SCHILY.xattr.user.%d", i)] = block[:100] // too long for the inode
	}
}

// unchecked is a layer with a DiffID that nobody has computed.
type unchecked struct{ v1.Layer }

func (unchecked) DiffID() (v1.Hash, error) {
	return v1.NewHash("sha256:" + strings.Repeat("0", 64))
}

// Names in an image mean what they mean in it.
func TestPullNamesStayWithin(t *testing.T) {
	h := newHub(t)
	s, _ := storeIn(t)
	got := pull(t, s, h.push(t, "app:v1", imageOf(t, nil, layerOf(t, tarOf(t, symlink("out", "/etc"), symlink("up", "../../../../etc"), file("out/a", "a"), file("up/b", "b"), file("../../../etc/c", "c"), file("/etc/d", "d")), compression.GZip))))
	e := open(t, got.Path)
	for _, name := range []string{"a", "b", "c", "d"} {
		if e.content("/etc/"+name) != name {
			t.Errorf("/etc/%s is not there", name)
		}
	}
}

// A registry leads to where its blobs are, but not into a network that it can't see itself.
func TestPullRedirects(t *testing.T) {
	h, other := newHub(t), newHub(t)
	s, dir := storeIn(t)
	img, _, digest := large(t)
	reference := h.push(t, "app:v1", img)
	other.push(t, "app:v1", img)
	to := ""
	h.answering(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, digest) {
			http.Redirect(w, r, to+r.URL.Path, http.StatusTemporaryRedirect)
			return true
		}
		return false
	})
	to = "http://" + h.host
	if _, err := s.Pull(t.Context(), reference, amd64); err == nil || !strings.Contains(err.Error(), "more than 10 redirects") {
		t.Error("to itself:", err)
	}
	to = "http://" + other.host
	other.answering(nil)
	got := pull(t, s, reference)
	if len(other.asked(digest)) != 1 {
		t.Errorf("%q", other.asked(""))
	}
	if err := errors.Join(s.Remove(t.Context(), got.Digest)); err != nil {
		t.Error(err)
	}
	isEmpty(t, "redirects", dir)
}

// A blob that was kept, and is another now, is found out and gone, so that the next pull gets it again.
func TestPullDamagedDownload(t *testing.T) {
	h := newHub(t)
	s, dir := storeIn(t)
	img, content, digest := large(t)
	reference := h.push(t, "app:v1", img)
	changed := bytes.Clone(content)
	changed[2000] ^= 1
	write(t, filepath.Join(dir, "blobs", strings.Replace(digest, ":", "-", 1)), changed)
	if _, err := s.Pull(t.Context(), reference, amd64); !errors.Is(err, image.ErrDigest) {
		t.Error(err)
	}
	isEmpty(t, "a damaged download", dir)
	pull(t, s, reference)
}
