package flatten

import (
	"archive/tar"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"time"
)

// visit is called by Walk with a file: its name without a leading slash, "" for the root. A header of TypeLink is one more name of a file before. Content has exactly h.Size
// bytes and is nil where there are none; what visit leaves of it is skipped.
type visit = func(h *tar.Header, content io.Reader) error

// Walk gives each file once, see the package's comment for the order. Progress, which may be nil, is told of bytes of content. It takes the tree apart, so that whoever puts
// the files down has room for what it knows of them: it can be called once, and last.
func (t *Tree) Walk(ctx context.Context, visit visit, progress func(n int64)) error {
	plan, err := t.emptyOnes(visit)
	if err != nil {
		return err
	}
	for i, files := range plan.contents {
		if len(files) == 0 {
			continue
		}
		slices.SortFunc(files, func(a, b *inode) int { return cmp.Compare(a.index, b.index) })
		if err := t.content(ctx, t.layers[i], files, visit, progress); err != nil {
			return fmt.Errorf("layer %d: %w", i+1, err)
		}
		plan.contents[i] = nil
	}
	for _, l := range plan.links {
		if err := visit(&tar.Header{Typeflag: tar.TypeLink, Name: l.name, Linkname: l.file.path(), Format: tar.FormatPAX}, nil); err != nil {
			return err
		}
	}
	return nil
}

// plan is what is left to do once directories and files without content are written.
type plan struct {
	contents [][]*inode // By layer.
	links    []link
}

type link struct {
	name string
	file *inode
}

// emptyOnes visits directories, each before what is in it, and files without content.
func (t *Tree) emptyOnes(visit visit) (plan, error) {
	p := plan{contents: make([][]*inode, len(t.layers))}
	if err := visit(t.root.header(), nil); err != nil {
		return p, err
	}
	return p, t.directory(t.root, &p, visit)
}

func (t *Tree) directory(dir *inode, p *plan, visit visit) error {
	for _, name := range slices.Sorted(maps.Keys(dir.children)) {
		file := dir.children[name].inode
		if file.kind != tar.TypeDir && file.parent != nil { // the root's parent is nil, but the root is no child
			p.links = append(p.links, link{join(dir.path(), name), file})
			continue
		}
		file.parent, file.name = dir, name
		if file.size > 0 {
			p.contents[file.layer] = append(p.contents[file.layer], file)
			continue
		}
		if err := visit(file.header(), nil); err != nil {
			return err
		}
		if file.kind == tar.TypeDir {
			if err := t.directory(file, p, visit); err != nil {
				return err
			}
		}
	}
	dir.children = nil
	return nil
}

func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

// content visits files of one layer, which are in the layer's order.
func (t *Tree) content(ctx context.Context, layer Layer, files []*inode, visit visit, progress func(n int64)) (err error) {
	s, err := layer.open(ctx, t.limits.Bytes, layer.Volatile, func(int) {})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	r := tar.NewReader(s)
	for index := int32(0); len(files) > 0; index++ {
		h, err := r.Next()
		if err == io.EOF {
			return fmt.Errorf("%w: it changed while it was read", ErrDigest)
		}
		if err != nil {
			return malformed(err)
		}
		if index != files[0].index {
			continue
		}
		if h.Size != files[0].size {
			return fmt.Errorf("%w: it changed while it was read", ErrDigest)
		}
		if err := visit(files[0].header(), counter{r, progress}); err != nil {
			return err
		}
		files[0] = nil
		files = files[1:]
	}
	return s.end()
}

// counter tells of bytes that are read.
type counter struct {
	r        io.Reader
	progress func(n int64)
}

func (c counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if c.progress != nil && n > 0 {
		c.progress(int64(n))
	}
	return n, err
}

func (n *inode) header() *tar.Header {
	h := &tar.Header{
		Typeflag: n.kind, Name: n.path(), Linkname: n.target, Size: n.size, Mode: int64(n.mode), Uid: int(n.uid), Gid: int(n.gid), ModTime: time.Unix(n.sec, int64(n.nsec)),
		Devmajor: int64(n.device >> 20), Devminor: int64(n.device & (1<<20 - 1)), Format: tar.FormatPAX,
	}
	for name, value := range n.xattrs {
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords[xattrRecord+name] = value
	}
	return h
}

// inodes goes through all files, each once, in no order.
func (t *Tree) inodes() iter.Seq[*inode] {
	return func(yield func(*inode) bool) {
		seen := map[*inode]bool{} // of those that have several names
		var in func(dir *inode) bool
		in = func(dir *inode) bool {
			if !yield(dir) {
				return false
			}
			for _, c := range dir.children {
				switch {
				case c.kind == tar.TypeDir:
					if !in(c.inode) {
						return false
					}
				case !seen[c.inode]:
					if c.names > 1 {
						seen[c.inode] = true
					}
					if !yield(c.inode) {
						return false
					}
				}
			}
			return true
		}
		in(t.root)
	}
}

// Census is what a tree holds.
type Census struct {
	Names   int64 // Of files and directories.
	Inodes  int64
	Dirs    int64
	Content int64 // Bytes of contents.
	Bytes   int64 // The same, each file's rounded up to blocks of 4096.
	Meta    int64 // Bytes of names, link targets and extended attributes.
}

// Census counts what the tree holds.
func (t *Tree) Census() Census {
	c := Census{Names: t.files, Meta: t.meta}
	for file := range t.inodes() {
		c.Inodes++
		c.Content += file.size
		c.Bytes += (file.size + 4095) &^ 4095
		if file.kind == tar.TypeDir {
			c.Dirs++
		}
	}
	return c
}
