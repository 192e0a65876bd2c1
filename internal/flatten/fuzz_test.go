package flatten

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"testing"
)

// FuzzFlatten makes layers of bytes: whatever they are, Read and Walk end, within limits, with an error of a known kind or with a tree that can be written in order.
func FuzzFlatten(f *testing.F) {
	f.Add(tarOf("d d", "f d/x x", "l l d", "h h d/x"), tarOf("f l/.wh.x", "f d/y y", "f .wh.h"), tarOf("f d/.wh..wh..opq", "d d"))
	f.Add(tarOf("l a ../..", "f a/b c"), tarOf("d a", "c a/c"), tarOf("p a"))
	f.Add(sparseTar(1<<20), tarOf("f .wh..wh.aufs"), []byte{})
	f.Add([]byte("\x1f\x8b"), []byte("\x28\xb5\x2f\xfd"), []byte("not a tar"))
	f.Fuzz(func(t *testing.T, first, second, third []byte) {
		var layers []Layer
		for _, text := range [][]byte{first, second, third} {
			layers = append(layers, Layer{Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(text)), nil }})
		}
		check(t, layers)
	})
}

// FuzzEntries is FuzzFlatten with tars that are whole: one line an entry, an empty line between layers, see entry.
func FuzzEntries(f *testing.F) {
	f.Add("d d\nf d/x x\nl l d\nh h d/x\n\nf l/.wh.x\nf d/y y\nf .wh.h\n\nf d/.wh..wh..opq\nd d")
	f.Add("l a ../..\nf a/b c\n\nd a\nc a/c\n\np a\nh b a\nh a/../c b")
	f.Add("d a\nd a/b\nf a/b/c c\nl s a/b\n\nf s/.wh.c\nf .wh.a\nf s/d d\nf a/.wh..wh..opq")
	f.Fuzz(func(t *testing.T, text string) {
		var layers []Layer
		for part := range strings.SplitSeq(text, "\n\n") {
			var b bytes.Buffer
			w := tar.NewWriter(&b)
			for line := range strings.SplitSeq(part, "\n") {
				h, content := entry(line)
				if h.Typeflag != 0 && w.WriteHeader(h) == nil {
					io.WriteString(w, content)
				}
			}
			w.Close()
			layers = append(layers, layerOf(b.Bytes()))
		}
		check(t, layers)
	})
}

// check reads and walks layers.
func check(t *testing.T, layers []Layer) {
	limits := Limits{Bytes: 4 << 20, Files: 1000, Metadata: 1 << 20}
	tree, err := Read(t.Context(), layers, limits, nil)
	if err != nil {
		if !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrLimit) && !errors.Is(err, tar.ErrHeader) {
			t.Fatalf("unknown error %v", err)
		}
		return
	}
	seen := map[string]bool{}
	err = tree.Walk(t.Context(), func(h *tar.Header, content io.Reader) error { return inOrder(seen, h, content) }, nil)
	if err != nil {
		t.Fatal(err)
	}
	if names := tree.Census().Names; int64(len(seen)-1) != names || names > limits.Files {
		t.Fatalf("%d names, census %d", len(seen)-1, names)
	}
}

// inOrder checks one file of a walk against those before it. seen holds names and whether each is a directory.
func inOrder(seen map[string]bool, h *tar.Header, content io.Reader) error {
	name := h.Name
	if _, twice := seen[name]; twice || (name != "" && (path.Clean("/" + name)[1:] != name || strings.Contains("/"+name+"/", "/../"))) {
		return fmt.Errorf("name %q", name)
	}
	parent := strings.TrimPrefix(path.Dir("/"+name), "/")
	if name != "" && !seen[parent] {
		return fmt.Errorf("%q before its directory", name)
	}
	if h.Typeflag == tar.TypeLink {
		if dir, ok := seen[h.Linkname]; !ok || dir {
			return fmt.Errorf("link %q before its target %q", name, h.Linkname)
		}
	}
	seen[name] = h.Typeflag == tar.TypeDir
	if content == nil {
		return nil
	}
	n, err := io.Copy(io.Discard, content)
	if err == nil && n != h.Size {
		err = fmt.Errorf("%q: %d bytes of %d", name, n, h.Size)
	}
	return err
}
