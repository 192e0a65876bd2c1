package flatten

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
)

// entry makes a header of a line: "TYPE NAME [TARGET or CONTENT]", where TYPE is d, f, l, h (hard link), p, c, or u (unknown).
func entry(line string) (*tar.Header, string) {
	kind, rest, _ := strings.Cut(line, " ")
	name, more, _ := strings.Cut(rest, " ")
	h := &tar.Header{Name: name, Mode: 0o644, ModTime: time.Unix(1e9, 0), Format: tar.FormatPAX}
	switch kind {
	case "d":
		h.Typeflag, h.Mode = tar.TypeDir, 0o711
	case "f":
		h.Typeflag, h.Size = tar.TypeReg, int64(len(more))
		return h, more
	case "l":
		h.Typeflag, h.Linkname = tar.TypeSymlink, more
	case "h":
		h.Typeflag, h.Linkname = tar.TypeLink, more
	case "p":
		h.Typeflag = tar.TypeFifo
	case "c":
		h.Typeflag, h.Devmajor, h.Devminor = tar.TypeChar, 1, 3
	case "u":
		h.Typeflag = 'Q'
	}
	return h, ""
}

func tarOf(lines ...string) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, line := range lines {
		h, content := entry(line)
		if err := w.WriteHeader(h); err != nil {
			panic(err)
		}
		io.WriteString(w, content)
	}
	w.Close()
	return b.Bytes()
}

func layerOf(text []byte) Layer {
	return Layer{
		Open:   func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(text)), nil },
		DiffID: fmt.Sprintf("sha256:%x", sha256.Sum256(text)),
	}
}

// listing walks a tree and tells of each file in the form of entry.
func listing(ctx context.Context, t *Tree) (lines []string, err error) {
	err = t.Walk(ctx, func(h *tar.Header, content io.Reader) error {
		line := map[byte]string{tar.TypeDir: "d", tar.TypeReg: "f", tar.TypeSymlink: "l", tar.TypeLink: "h", tar.TypeFifo: "p", tar.TypeChar: "c"}[h.Typeflag] + " " + h.Name
		if h.Linkname != "" {
			line += " " + h.Linkname
		}
		if content != nil {
			text, err := io.ReadAll(content)
			if err != nil || int64(len(text)) != h.Size {
				return fmt.Errorf("%d bytes of %d: %w", len(text), h.Size, err)
			}
			line += " " + string(text)
		}
		lines = append(lines, line)
		return nil
	}, nil)
	return lines, err
}

func TestLayersMakeATree(t *testing.T) {
	type layers = [][]string
	for name, c := range map[string]struct {
		layers layers
		want   []string
	}{
		"nothing":        {layers{{}}, nil},
		"files and dirs": {layers{{"d a", "f a/b hello", "l a/l b", "p a/p", "c a/c", "f a/empty"}}, []string{"d a", "c a/c", "f a/empty", "l a/l b", "p a/p", "f a/b hello"}},
		"replaced":       {layers{{"f a one"}, {"f a two"}, {"f a 3"}}, []string{"f a 3"}},
		"dir stays":      {layers{{"d d", "f d/x x"}, {"d d", "f d/y y"}}, []string{"d d", "f d/x x", "f d/y y"}},
		"dir by file":    {layers{{"d d", "f d/x x"}, {"f d file"}}, []string{"f d file"}},
		"file by dir":    {layers{{"f d file"}, {"d d", "f d/x x"}}, []string{"d d", "f d/x x"}},
		"link by dir":    {layers{{"d real", "l d real"}, {"d d", "f d/x x"}}, []string{"d d", "d real", "f d/x x"}},

		"whiteout":                  {layers{{"d d", "f d/x x", "f d/y y"}, {"f d/.wh.x"}}, []string{"d d", "f d/y y"}},
		"whiteout of a directory":   {layers{{"d d", "d d/e", "f d/e/x x"}, {"f .wh.d"}}, nil},
		"whiteout and again":        {layers{{"d d", "f d/x x"}, {"f .wh.d", "d d", "f d/y y"}}, []string{"d d", "f d/y y"}},
		"whiteout after its own":    {layers{{"d d", "f d/x x", "d d/e", "f d/e/old o"}, {"d d", "f d/x new", "f d/e/y y", "f .wh.d"}}, []string{"d d", "d d/e", "f d/x new", "f d/e/y y"}},
		"whiteout of nothing":       {layers{{"f a a"}, {"f .wh.b", "f no/.wh.b", "f a/.wh.b"}}, []string{"f a a"}},
		"whiteout keeps own layer":  {layers{{"f x x", "f .wh.x"}}, []string{"f x x"}},
		"opaque":                    {layers{{"d d", "f d/x x", "d d/e", "f d/e/y y"}, {"d d", "f d/.wh..wh..opq", "f d/z z"}}, []string{"d d", "f d/z z"}},
		"opaque after its own":      {layers{{"d d", "f d/x x", "d d/e", "f d/e/y y"}, {"f d/z z", "f d/e/w w", "f d/.wh..wh..opq"}}, []string{"d d", "d d/e", "f d/z z", "f d/e/w w"}},
		"opaque twice":              {layers{{"d d", "f d/x x"}, {"f d/.wh..wh..opq", "f d/y y", "f d/.wh..wh..opq"}}, []string{"d d", "f d/y y"}},
		"opaque of the root":        {layers{{"f a a", "d d", "f d/x x"}, {"f .wh..wh..opq", "f b b"}}, []string{"f b b"}},
		"opaque through a link":     {layers{{"d r", "f r/x x", "l l r"}, {"f l/.wh..wh..opq"}}, []string{"l l r", "d r"}},
		"what aufs leaves":          {layers{{"f .wh..wh.aufs", "d .wh..wh.plnk", "f .wh..wh.plnk/1.2 x", "f a a"}}, []string{"f a a"}},
		"whiteout of a hard link":   {layers{{"f a one", "h b a", "h c b"}, {"f .wh.a"}}, []string{"f b one", "h c b"}},
		"hard link across layers":   {layers{{"f a one"}, {"h b a"}, {"f a two", "h c b"}}, []string{"f b one", "f a two", "h c b"}},
		"hard link to what will go": {layers{{"f a one"}, {"h b a", "f .wh.a"}}, []string{"f b one"}},
		"hard link to a symlink":    {layers{{"l a x", "h b a"}}, []string{"l a x", "h b a"}},
		"hard link through a link":  {layers{{"d r", "f r/a one", "l l r", "h b l/a"}}, []string{"l l r", "d r", "f b one", "h r/a b"}},
		"hard link to itself":       {layers{{"f a one", "h a a"}}, []string{"f a one"}},
		"hard link again":           {layers{{"f a one", "h b a"}, {"h b a"}}, []string{"f a one", "h b a"}},

		"through a symbolic link":  {layers{{"d usr/lib", "l lib usr/lib"}, {"f lib/x x"}}, []string{"l lib usr/lib", "d usr", "d usr/lib", "f usr/lib/x x"}},
		"through an absolute link": {layers{{"l lib /usr/lib"}, {"f lib/x x"}}, []string{"l lib /usr/lib", "d usr", "d usr/lib", "f usr/lib/x x"}},
		"a link that leads out":    {layers{{"l up ../../..", "l abs /../etc"}, {"f up/x x", "f abs/y y"}}, []string{"l abs /../etc", "d etc", "l up ../../..", "f x x", "f etc/y y"}},
		"names that lead out":      {layers{{"f ../../x x", "f /abs a", "f d/../../y y", "f ./z z"}}, []string{"f x x", "f abs a", "f y y", "f z z"}},
		"parents unsaid":           {layers{{"f a/b/c c"}}, []string{"d a", "d a/b", "f a/b/c c"}},
		"the root itself":          {layers{{"d ./", "f x x"}}, []string{"f x x"}},
	} {
		t.Run(name, func(t *testing.T) {
			var all []Layer
			for _, lines := range c.layers {
				all = append(all, layerOf(tarOf(lines...)))
			}
			tree, err := Read(t.Context(), all, Limits{}, nil)
			if err != nil {
				t.Fatal(err)
			}
			got, err := listing(t.Context(), tree)
			if err != nil {
				t.Fatal(err)
			}
			want := append([]string{"d "}, c.want...)
			if strings.Join(got, "\n") != strings.Join(want, "\n") {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
			if n := tree.Census().Names; n != int64(len(want)-1) {
				t.Errorf("census says %d names", n)
			}
		})
	}
}

func TestRefused(t *testing.T) {
	small := Limits{Files: 10, Bytes: 64 << 10, Metadata: 1000, Layers: 2}
	long := strings.Repeat("n", maxName+1)
	deep := strings.Repeat("d/", maxPath/2+1) + "f"
	many := make([]string, 11)
	for i := range many {
		many[i] = fmt.Sprintf("f f%d", i)
	}
	for name, c := range map[string]struct {
		layers [][]string
		want   error
	}{
		"a file as directory":       {[][]string{{"f a a", "f a/b b"}}, ErrMalformed},
		"a loop":                    {[][]string{{"l a b", "l b a", "f a/x x"}}, ErrMalformed},
		"a link to itself":          {[][]string{{"l a a/b", "f a/x x"}}, ErrMalformed},
		"hard link to nothing":      {[][]string{{"h a b"}}, ErrMalformed},
		"hard link to what is late": {[][]string{{"h a b", "f b b"}}, ErrMalformed},
		"hard link to a directory":  {[][]string{{"d d", "h a d"}}, ErrMalformed},
		"root as a file":            {[][]string{{"l . x"}}, ErrMalformed},
		"unknown type":              {[][]string{{"u x"}}, ErrMalformed},
		"long name":                 {[][]string{{"f " + long}}, ErrMalformed},
		"long path":                 {[][]string{{"f " + deep}}, ErrMalformed},
		"whiteout without name":     {[][]string{{"f .wh."}}, ErrMalformed},
		"whiteout of dots":          {[][]string{{"f d/.wh..."}}, ErrMalformed},
		"link to nowhere":           {[][]string{{"l x "}}, ErrMalformed},
		"too many files":            {[][]string{many}, ErrLimit},
		"too many layers":           {[][]string{{}, {}, {}}, ErrLimit},
		"too much":                  {[][]string{{"f big " + strings.Repeat("x", 65<<10)}}, ErrLimit},
		"too much together":         {[][]string{{"f big " + strings.Repeat("x", 40<<10)}, {"f big " + strings.Repeat("x", 40<<10)}}, ErrLimit},
		"too much of names":         {[][]string{{"l a " + strings.Repeat("t", 600), "l b " + strings.Repeat("t", 600)}}, ErrLimit},
	} {
		t.Run(name, func(t *testing.T) {
			var all []Layer
			for _, lines := range c.layers {
				all = append(all, layerOf(tarOf(lines...)))
			}
			if _, err := Read(t.Context(), all, small, nil); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

func TestForms(t *testing.T) {
	plain := tarOf("d d", "f d/x hello")
	var zipped, zst bytes.Buffer
	z := gzip.NewWriter(&zipped)
	z.Write(plain)
	z.Close()
	e, err := zstd.NewWriter(&zst)
	if err != nil {
		t.Fatal(err)
	}
	e.Write(plain)
	e.Close()
	diffID := layerOf(plain).DiffID
	for name, text := range map[string][]byte{"plain": plain, "gzip": zipped.Bytes(), "zstd": zst.Bytes(), "zstd after a frame to skip": append([]byte("\x50\x2a\x4d\x18\x02\x00\x00\x00hi"), zst.Bytes()...)} {
		t.Run(name, func(t *testing.T) {
			layer := layerOf(text)
			layer.DiffID = diffID
			tree, err := Read(t.Context(), []Layer{layer}, Limits{}, nil)
			if err != nil {
				t.Fatal(err)
			}
			got, err := listing(t.Context(), tree)
			if err != nil || strings.Join(got, ",") != "d ,d d,f d/x hello" {
				t.Error(got, err)
			}
			layer.DiffID = "sha256:" + strings.Repeat("0", 64)
			if _, err := Read(t.Context(), []Layer{layer}, Limits{}, nil); !errors.Is(err, ErrDigest) {
				t.Error("another content than its digest says:", err)
			}
			layer = layerOf(text[:len(text)-len(text)/3])
			layer.DiffID = ""
			if _, err := Read(t.Context(), []Layer{layer}, Limits{}, nil); !errors.Is(err, ErrMalformed) {
				t.Error("cut short:", err)
			}
		})
	}
}

// A bomb may hide behind the tar's end, in a sparse file, or in work that links make.
func TestBombs(t *testing.T) {
	limits := Limits{Bytes: 1 << 20, Files: 1000}
	var tail bytes.Buffer
	z := gzip.NewWriter(&tail)
	z.Write(tarOf("f a a"))
	z.Write(make([]byte, 4<<20))
	z.Close()
	bomb := layerOf(tail.Bytes())
	bomb.DiffID = "sha256:" + strings.Repeat("0", 64)
	sparse := Layer{Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(sparseTar(1 << 40))), nil }}
	lines := []string{"d x"}
	for i := range 200 {
		lines = append(lines, fmt.Sprintf("l x/l%d %s/x", i, strings.Repeat("../x/", 400)))
	}
	for i := range 200 {
		lines = append(lines, fmt.Sprintf("d x/l%d/l%d/l%d/l%d/l%d", i, i, i, i, i))
	}
	for name, layer := range map[string]Layer{"tail": bomb, "sparse": sparse, "links": layerOf(tarOf(lines...))} {
		if _, err := Read(t.Context(), []Layer{layer}, limits, nil); !errors.Is(err, ErrLimit) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// sparseTar is a tar of one file, all of it a hole.
func sparseTar(size int64) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	w.WriteHeader(&tar.Header{Name: "GNUSparseFile.0/hole", Typeflag: tar.TypeReg, Mode: 0o644, Format: tar.FormatPAX})
	w.Close()
	records := map[string]string{"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.size": fmt.Sprint(size), "GNU.sparse.numblocks": "0", "GNU.sparse.map": ""}
	var pax bytes.Buffer
	for key, value := range records {
		line := " " + key + "=" + value + "\n"
		n := len(line) + 2
		if n < 100 {
			fmt.Fprintf(&pax, "%d%s", n, line)
		}
	}
	header := &bytes.Buffer{}
	x := tar.NewWriter(header)
	x.WriteHeader(&tar.Header{Name: "pax", Typeflag: tar.TypeReg, Size: int64(pax.Len()), Mode: 0o644, Format: tar.FormatUSTAR})
	block := header.Bytes()[:512]
	block[156] = tar.TypeXHeader
	copy(block[148:156], "        ")
	sum := 0
	for _, c := range block {
		sum += int(c)
	}
	copy(block[148:156], fmt.Sprintf("%06o\x00 ", sum))
	out := append(bytes.Clone(block), pax.Bytes()...)
	out = append(out, make([]byte, (512-pax.Len()%512)%512)...)
	return append(out, b.Bytes()...)
}

// Walk notices a layer that changed after Read, where others may change it.
func TestChangedMeanwhile(t *testing.T) {
	first, second := tarOf("d d", "f d/x hello"), tarOf("d d", "f d/x hallo")
	for _, volatile := range []bool{true, false} {
		current := first
		layer := layerOf(first)
		layer.Volatile = volatile
		layer.Open = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(current)), nil }
		tree, err := Read(t.Context(), []Layer{layer}, Limits{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		current = second
		if _, err := listing(t.Context(), tree); errors.Is(err, ErrDigest) != volatile {
			t.Errorf("volatile %v: %v", volatile, err)
		}
	}
}

func TestContextEndsReading(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("gone")
	layer := layerOf(tarOf("f a " + strings.Repeat("x", 4<<20)))
	_, err := Read(ctx, []Layer{layer}, Limits{}, func(int, int64) { cancel(gone) })
	if !errors.Is(err, gone) || errors.Is(err, ErrMalformed) {
		t.Error(err)
	}
}
