package flatten

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
)

// Limits bound what layers may come to. Zero is the default.
type Limits struct {
	Bytes    int64 // Of all uncompressed tars, and of the contents of all files. Optional: 32 GiB.
	Files    int64 // Names. Optional: 1 million.
	Metadata int64 // Of names, link targets and extended attributes, which are kept in memory, in bytes. Optional: 256 MiB.
	Layers   int   // Optional: 512.
}

// WithDefaults returns the limits with defaults in place of zeros.
func (l Limits) WithDefaults() Limits {
	set := func(n *int64, value int64) {
		if *n == 0 {
			*n = value
		}
	}
	set(&l.Bytes, 32<<30)
	set(&l.Files, 1_000_000)
	set(&l.Metadata, 256<<20)
	if l.Layers == 0 {
		l.Layers = 512
	}
	return l
}

const (
	whiteout     = ".wh."
	whiteoutMeta = ".wh..wh." // Of aufs, beside the following.
	opaque       = ".wh..wh..opq"
	xattrRecord  = "SCHILY.xattr."
)

// Read goes through layers, the lowest first, and returns what they come to. Progress, which may be nil, is told of uncompressed bytes.
func Read(ctx context.Context, layers []Layer, limits Limits, progress func(layer int, n int64)) (*Tree, error) {
	limits = limits.WithDefaults()
	if len(layers) > limits.Layers {
		return nil, fmt.Errorf("%w: %d layers, at most %d", ErrLimit, len(layers), limits.Layers)
	}
	t := newTree(layers, limits)
	left := limits.Bytes
	for i, layer := range layers {
		t.current = int32(i)
		report := func(n int) {
			if progress != nil {
				progress(i, int64(n))
			}
		}
		read, err := t.layer(ctx, layer, left, report)
		if err != nil {
			return nil, fmt.Errorf("layer %d: %w", i+1, err)
		}
		left = read
	}
	if size := t.contents(); size > limits.Bytes {
		return nil, fmt.Errorf("%w: files of %d bytes, at most %d", ErrLimit, size, limits.Bytes)
	}
	return t, nil
}

// layer reads one layer and returns how much is left to read of others.
func (t *Tree) layer(ctx context.Context, layer Layer, left int64, report func(int)) (_ int64, err error) {
	s, err := layer.open(ctx, left, true, report)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	r := tar.NewReader(s)
	for index := int32(0); ; index++ {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return 0, malformed(err)
		}
		if index == math.MaxInt32 {
			return 0, fmt.Errorf("%w: entries", ErrLimit)
		}
		if err := t.entry(h, index, layer.Plain); err != nil {
			return 0, fmt.Errorf("%q: %w", abbreviate(h.Name), err)
		}
	}
	return s.left, s.end()
}

// malformed marks errors of the tar reader itself.
func malformed(err error) error {
	if errors.Is(err, tar.ErrHeader) || errors.Is(err, tar.ErrFieldTooLong) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, tar.ErrInsecurePath) {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return err
}

// entry does to the tree what an entry says.
func (t *Tree) entry(h *tar.Header, index int32, plain bool) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	if len(h.Name) > maxPath || len(h.Linkname) > maxPath {
		return fmt.Errorf("%w: name too long", ErrMalformed)
	}
	dirName, name := split(h.Name)
	if !plain {
		if strings.HasPrefix(name, whiteout) && (name == opaque || !strings.HasPrefix(name, whiteoutMeta)) {
			return t.whiteoutEntry(dirName, name)
		}
		if strings.HasPrefix(name, whiteoutMeta) || strings.Contains(dirName, "/"+whiteoutMeta) {
			return nil
		}
	}
	dir, err := t.resolve(dirName, true)
	if err != nil {
		return err
	}
	if name == "" {
		if h.Typeflag != tar.TypeDir {
			return fmt.Errorf("%w: the root is no directory", ErrMalformed)
		}
		return t.describe(t.root, h, index)
	}
	return t.place(dir, name, h, index)
}

// place puts what an entry describes under a name, in place of what was there. Of a directory that was there, what is in it stays.
func (t *Tree) place(dir *inode, name string, h *tar.Header, index int32) error {
	old, exists := dir.children[name]
	if h.Typeflag == tar.TypeLink {
		target, err := t.target(h.Linkname)
		if err != nil || exists && old.inode == target {
			return err
		}
		t.remove(dir, name)
		return t.put(dir, name, target)
	}
	file := old.inode
	if !exists || old.kind != tar.TypeDir || h.Typeflag != tar.TypeDir {
		t.remove(dir, name)
		file = &inode{}
		if h.Typeflag == tar.TypeDir {
			file = newDirectory(dir, name)
		}
	}
	if err := t.describe(file, h, index); err != nil {
		return err
	}
	return t.put(dir, name, file)
}

// target returns the file that a hard link's target means. The last part of the name is not followed where it is a symbolic link.
func (t *Tree) target(linkname string) (*inode, error) {
	dirName, name := split(linkname)
	dir, err := t.resolve(dirName, false)
	if err != nil {
		return nil, err
	}
	if dir != nil {
		if c, ok := dir.children[name]; ok && c.kind != tar.TypeDir {
			return c.inode, nil
		}
	}
	return nil, fmt.Errorf("%w: hard link to %q, which is no file", ErrMalformed, abbreviate(linkname))
}

func (t *Tree) whiteoutEntry(dirName, name string) error {
	removed := strings.TrimPrefix(name, whiteout)
	if removed == "" || removed == "." || removed == ".." {
		return fmt.Errorf("%w: whiteout of nothing", ErrMalformed)
	}
	dir, err := t.resolve(dirName, false)
	switch {
	case err != nil || dir == nil:
	case name == opaque:
		t.opaque(dir)
	default:
		t.whiteout(dir, removed)
	}
	return err
}

// describe gives a file what an entry says of it.
func (t *Tree) describe(file *inode, h *tar.Header, index int32) error {
	kind, err := kindOf(h)
	if err != nil {
		return err
	}
	if h.Uid < 0 || h.Gid < 0 || int64(h.Uid) >= math.MaxUint32 || int64(h.Gid) >= math.MaxUint32 {
		return fmt.Errorf("%w: owner %d:%d", ErrMalformed, h.Uid, h.Gid)
	}
	file.kind, file.mode, file.uid, file.gid = kind, uint16(h.Mode&0o7777), uint32(h.Uid), uint32(h.Gid)
	file.sec, file.nsec, file.layer, file.index = h.ModTime.Unix(), int32(h.ModTime.Nanosecond()), t.current, index
	file.xattrs = nil
	switch kind {
	case tar.TypeReg:
		if h.Size < 0 || h.Size > t.limits.Bytes {
			return fmt.Errorf("%w: a file of %d bytes, at most %d", ErrLimit, h.Size, t.limits.Bytes)
		}
		file.size = h.Size
	case tar.TypeSymlink:
		if h.Linkname == "" {
			return fmt.Errorf("%w: symbolic link to nothing", ErrMalformed)
		}
		file.target = strings.Clone(h.Linkname)
	case tar.TypeChar, tar.TypeBlock:
		if h.Devmajor < 0 || h.Devmajor >= 1<<12 || h.Devminor < 0 || h.Devminor >= 1<<20 {
			return fmt.Errorf("%w: device %d:%d", ErrMalformed, h.Devmajor, h.Devminor)
		}
		file.device = uint32(h.Devmajor)<<20 | uint32(h.Devminor)
	}
	if err := t.account(len(file.target)); err != nil {
		return err
	}
	return t.attributes(file, h)
}

// kindOf returns the type of a file, of which tar has more than one spelling.
func kindOf(h *tar.Header) (byte, error) {
	switch h.Typeflag {
	case tar.TypeReg, 0, tar.TypeCont, tar.TypeGNUSparse:
		return tar.TypeReg, nil
	case tar.TypeDir, tar.TypeSymlink, tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		return h.Typeflag, nil
	}
	return 0, fmt.Errorf("%w: type %q", ErrMalformed, h.Typeflag)
}

// attributes keeps the extended attributes.
func (t *Tree) attributes(file *inode, h *tar.Header) error {
	for key, value := range h.PAXRecords {
		name, ok := strings.CutPrefix(key, xattrRecord)
		if !ok {
			continue
		}
		if file.xattrs == nil {
			file.xattrs = map[string]string{}
		}
		file.xattrs[strings.Clone(name)] = strings.Clone(value)
		if err := t.account(len(name) + len(value)); err != nil {
			return err
		}
	}
	return nil
}

// contents returns the bytes of all files' contents.
func (t *Tree) contents() int64 {
	var sum int64
	for file := range t.inodes() {
		sum += min(file.size, math.MaxInt64-sum)
	}
	return sum
}
