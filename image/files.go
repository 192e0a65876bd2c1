//go:build linux

package image

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"syscall"

	"github.com/tangle-network/microvm-runtime/internal/flatten"
)

// files are the members of a directory or of a tar.
type files interface {
	open(name string) (blob, error)   // os.ErrNotExist when there is none.
	text(name string) ([]byte, error) // The whole of a small one.
}

// rootFiles are a directory's. No name leads out of it.
type rootFiles struct{ root *os.Root }

func (r rootFiles) open(name string) (blob, error) {
	f, err := r.root.OpenFile(path.Clean(name), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return blob{}, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%w: %s is no regular file", ErrMalformed, name)
	}
	if err != nil {
		return blob{}, errors.Join(err, f.Close())
	}
	return blob{ReaderAt: f, Closer: f, size: info.Size(), volatile: true}, nil
}

func (r rootFiles) text(name string) ([]byte, error) { return textOf(r, name) }

func textOf(f files, name string) (_ []byte, err error) {
	b, err := f.open(name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	return readDocument(io.NewSectionReader(b, 0, b.size))
}

// tarFiles are a plain tar's.
type tarFiles struct {
	f        *os.File
	volatile bool
	members  map[string]member
}

// member is where one is in the tar, or which other one it is a link to.
type member struct {
	at, size int64
	link     string
}

const (
	maxMembers     = 100_000
	maxMemberLinks = 10
)

// indexTar finds the members of a plain tar.
func indexTar(f *os.File, volatile bool) (tarFiles, error) {
	t := tarFiles{f: f, volatile: volatile, members: map[string]member{}}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return t, err
	}
	r := tar.NewReader(f) // reads not a byte more than it needs, and skips what it can
	for {
		h, err := r.Next()
		if err == io.EOF {
			return t, nil
		}
		if err != nil {
			return t, fmt.Errorf("%w: %w", ErrMalformed, err)
		}
		if len(t.members) == maxMembers {
			return t, fmt.Errorf("%w: more than %d members", ErrLimit, maxMembers)
		}
		name := path.Clean("/" + h.Name)
		switch h.Typeflag {
		case tar.TypeReg:
			at, err := f.Seek(0, io.SeekCurrent)
			if err != nil {
				return t, err
			}
			t.members[name] = member{at: at, size: h.Size}
		case tar.TypeLink:
			t.members[name] = member{link: path.Clean("/" + h.Linkname)}
		case tar.TypeSymlink: // docker save has them for layers that are the same
			t.members[name] = member{link: path.Join(path.Dir(name), h.Linkname)}
		}
	}
}

func (t tarFiles) open(name string) (blob, error) {
	m, ok := t.members[path.Clean("/"+name)]
	for n := 0; ok && m.link != "" && n < maxMemberLinks; n++ {
		m, ok = t.members[m.link]
	}
	if !ok || m.link != "" {
		return blob{}, fmt.Errorf("%s: %w", abbreviate(name), os.ErrNotExist)
	}
	return blob{ReaderAt: io.NewSectionReader(t.f, m.at, m.size), size: m.size, volatile: t.volatile}, nil
}

func (t tarFiles) text(name string) ([]byte, error) { return textOf(t, name) }

// looksLike says what format files have.
func looksLike(f files, otherwise Format) Format {
	_, layoutErr := f.text("oci-layout")
	_, indexErr := f.text("index.json")
	if layoutErr == nil && indexErr == nil {
		return FormatOCI
	}
	if text, err := f.text(savedManifest); err == nil && len(parseSaved(text)) > 0 {
		return FormatDocker
	}
	return otherwise
}

// scanned is what one reading of an archive tells.
type scanned struct {
	format     Format
	compressed bool
	fileSize   int64
	sum        string // Of the uncompressed tar, as a digest.
	size       int64  // Of the same, in bytes.
}

// scan reads an archive once.
func (i *importer) scan(f *os.File) (scanned, error) {
	info, err := f.Stat()
	if err != nil {
		return scanned{}, err
	}
	plain, compressed, err := flatten.Decompress(io.NewSectionReader(f, 0, info.Size()))
	if err != nil {
		return scanned{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	defer plain.Close()
	reading := i.report.stage(StageRead, "", 0)
	m := newMeter(i.ctx, i.limits.Bytes, reading.add)
	stream := io.TeeReader(plain, m)
	format, err := scanTar(stream)
	if err == nil {
		_, err = io.Copy(io.Discard, stream)
	}
	if err != nil {
		if i.ctx.Err() == nil && !errors.Is(err, ErrLimit) {
			err = fmt.Errorf("%w: %w", ErrMalformed, err)
		}
		return scanned{}, err
	}
	reading.end()
	return scanned{format: format, compressed: compressed, fileSize: info.Size(), sum: m.sum(), size: m.size}, nil
}

// scanTar looks for the members that only a layout or docker save has.
func scanTar(stream io.Reader) (Format, error) {
	hasLayout, hasIndex := false, false
	format := FormatTar
	r := tar.NewReader(stream)
	for n := 0; ; n++ {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return "", err
		}
		switch strings.TrimPrefix(path.Clean("/"+h.Name), "/") {
		case "oci-layout":
			hasLayout = true
		case "index.json":
			hasIndex = true
		case savedManifest:
			if text, err := readDocument(r); err == nil && len(parseSaved(text)) > 0 {
				format = FormatDocker
			}
		}
	}
	if hasLayout && hasIndex {
		format = FormatOCI
	}
	return format, nil
}
