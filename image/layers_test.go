//go:build linux

package image_test

import (
	"archive/tar"
	"bytes"
	"io"
	"testing"

	"github.com/google/go-containerregistry/pkg/compression"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/tangle-network/microvm-runtime/image"
)

// Short forms of entries.

func dir(name string) entry {
	return entry{tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755, ModTime: times.ModTime, Format: tar.FormatPAX}, ""}
}

func file(name, content string) entry {
	return entry{tar.Header{Name: name, Mode: 0o644, ModTime: times.ModTime, Format: tar.FormatPAX}, content}
}

func symlink(name, target string) entry {
	return entry{tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777, ModTime: times.ModTime, Format: tar.FormatPAX}, ""}
}

func hardlink(name, target string) entry {
	return entry{tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target, Format: tar.FormatPAX}, ""}
}

func node(kind byte, name string, major, minor int64) entry {
	return entry{tar.Header{Typeflag: kind, Name: name, Mode: 0o620, Devmajor: major, Devminor: minor, ModTime: times.ModTime, Format: tar.FormatPAX}, ""}
}

// with changes an entry's header.
func (e entry) with(change func(h *tar.Header)) entry {
	change(&e.Header)
	return e
}

// must is for what can't fail with what a test gives it.
func must[T any](t testing.TB, value T, err error) T {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return value
}

// layerOf makes a layer of a tar, compressed as said.
func layerOf(t testing.TB, content []byte, how compression.Compression) v1.Layer {
	t.Helper()
	if how == compression.None {
		return static.NewLayer(content, types.OCIUncompressedLayer)
	}
	kind := map[compression.Compression]types.MediaType{compression.GZip: types.OCILayer, compression.ZStd: types.OCILayerZStd}[how]
	opener := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil }
	layer, err := tarball.LayerFromOpener(opener, tarball.WithCompression(how), tarball.WithMediaType(kind))
	return must(t, layer, err)
}

// imageOf makes an image of layers, for linux/amd64 or as change says.
func imageOf(t testing.TB, change func(*v1.ConfigFile), layers ...v1.Layer) v1.Image {
	t.Helper()
	made := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	made = must(t, made, nil)
	added, err := mutate.AppendLayers(made, layers...)
	made = must(t, added, err)
	config, err := made.ConfigFile()
	config = must(t, config, err).DeepCopy()
	config.OS, config.Architecture = "linux", "amd64"
	if change != nil {
		change(config)
	}
	made, err = mutate.ConfigFile(made, config)
	return must(t, made, err)
}

// writeLayout makes an OCI layout with an image under a tag.
func writeLayout(t testing.TB, path, tag string, img v1.Image) {
	t.Helper()
	l, err := layout.Write(path, empty.Index)
	must(t, l, err)
	if err := l.AppendImage(img, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": tag})); err != nil {
		t.Fatal(err)
	}
}

func openStore(t testing.TB, dir string) *image.Store {
	t.Helper()
	s, err := image.Open(dir)
	return must(t, s, err)
}
