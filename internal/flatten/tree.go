package flatten

import (
	"archive/tar"
	"fmt"
	"path"
	"strings"
)

// What names may be; beyond it no Linux could have extracted them.
const (
	maxName  = 255
	maxPath  = 4095
	maxLinks = 255 // Symbolic links on the way to one file.
)

// stepsPerFile bounds the work that symbolic links to long paths can make.
const stepsPerFile = 256

// inode is a file that may have several names. There may be a million of them, so what few have is elsewhere.
type inode struct {
	kind     byte   // tar's type: TypeReg, TypeDir, TypeSymlink, TypeChar, TypeBlock or TypeFifo.
	mode     uint16 // Without the type.
	names    int32
	uid, gid uint32
	device   uint32 // Major number << 20 | minor number.
	layer    int32  // Where it is described; for a directory, the last layer that brought it or something in it.
	index    int32  // Of its entry in that layer.
	nsec     int32
	sec      int64
	size     int64
	target   string            // Of a symbolic link.
	xattrs   map[string]string // Nil where it has none.
	*directory

	parent *inode // Where its first name is; a directory's only one. Nil for the root, and for others until Walk.
	name   string
}

// directory is what only a directory has.
type directory struct {
	children map[string]child
	length   int   // Of its path, in bytes.
	opaqued  int32 // The last layer that took away what is in it from below.
}

// child is a name in a directory.
type child struct {
	*inode
	layer int32 // The last that brought the name.
}

// Tree is what layers come to.
type Tree struct {
	layers []Layer
	limits Limits
	root   *inode

	current int32 // The layer that is being read.
	files   int64
	meta    int64 // Bytes of names, targets and extended attributes.
	steps   int64 // Along paths.
}

func newTree(layers []Layer, limits Limits) *Tree {
	return &Tree{layers: layers, limits: limits, root: newDirectory(nil, "")}
}

func newDirectory(parent *inode, name string) *inode {
	d := &inode{kind: tar.TypeDir, mode: 0o755, parent: parent, name: name, layer: -1, directory: &directory{children: map[string]child{}, opaqued: -1}}
	if parent != nil {
		d.length = parent.length + 1 + len(name)
	}
	return d
}

// split returns the directory of a cleaned name, and the last part: "" for the root.
func split(name string) (dir, base string) {
	dir, base = path.Split(path.Clean("/" + name))
	return dir, base
}

// resolve returns the directory that a path means, following symbolic links within the tree. Where there is nothing it makes directories if create says so, and returns nil
// otherwise.
func (t *Tree) resolve(name string, create bool) (*inode, error) {
	at, rest, links := t.root, name, 0
	for rest != "" {
		if t.steps++; t.steps > stepsPerFile*t.limits.Files {
			return nil, fmt.Errorf("%w: paths and symbolic links take too many steps", ErrLimit)
		}
		var part string
		part, rest, _ = strings.Cut(rest, "/")
		switch part {
		case "", ".":
			continue
		case "..":
			if at.parent != nil {
				at = at.parent
			}
			continue
		}
		next, ok := at.children[part]
		switch {
		case !ok && !create:
			return nil, nil
		case !ok:
			made := newDirectory(at, part)
			if err := t.put(at, part, made); err != nil {
				return nil, err
			}
			at = made
		case next.kind == tar.TypeDir:
			at = next.inode
		case next.kind == tar.TypeSymlink:
			if links++; links > maxLinks {
				return nil, fmt.Errorf("%w: too many symbolic links in %q", ErrMalformed, abbreviate(name))
			}
			if strings.HasPrefix(next.target, "/") {
				at = t.root
			}
			t.steps += int64(len(next.target) / 16)
			rest = next.target + "/" + rest
		case create:
			return nil, fmt.Errorf("%w: %q is in no directory: %q is a file", ErrMalformed, abbreviate(name), part)
		default:
			return nil, nil
		}
	}
	return at, nil
}

// put gives a file a name, which the current layer brought.
func (t *Tree) put(dir *inode, name string, file *inode) error {
	switch {
	case len(name) > maxName || dir.length+1+len(name) > maxPath:
		return fmt.Errorf("%w: name %q is too long", ErrMalformed, abbreviate(name))
	case t.files >= t.limits.Files:
		return fmt.Errorf("%w: more than %d files", ErrLimit, t.limits.Files)
	}
	name = strings.Clone(name) // and not the path that it was a part of
	if _, ok := dir.children[name]; !ok {
		t.files++
		file.names++
	}
	if err := t.account(len(name)); err != nil {
		return err
	}
	dir.children[name] = child{file, t.current}
	t.touch(dir)
	if file.kind == tar.TypeDir {
		file.layer = t.current
	}
	return nil
}

// account counts what has to be kept in memory.
func (t *Tree) account(n int) error {
	if t.meta += int64(n); t.meta > t.limits.Metadata {
		return fmt.Errorf("%w: more than %d bytes of names, link targets and extended attributes", ErrLimit, t.limits.Metadata)
	}
	return nil
}

// touch says that the current layer brought something in a directory.
func (t *Tree) touch(dir *inode) {
	for ; dir != nil && dir.layer != t.current; dir = dir.parent {
		dir.layer = t.current
	}
}

// remove takes a name away, with all that is below it.
func (t *Tree) remove(dir *inode, name string) {
	if gone, ok := dir.children[name]; ok {
		t.forget(gone.inode)
		delete(dir.children, name)
	}
}

// forget counts one name of a file less, and with the last one those below it.
func (t *Tree) forget(file *inode) {
	t.files--
	file.names--
	if file.kind == tar.TypeDir {
		for _, c := range file.children {
			t.forget(c.inode)
		}
	}
}

// whiteout takes away what layers below the current one brought: a name, or all names in a directory. It keeps what the current one brought, and the directories on the way there.
func (t *Tree) whiteout(dir *inode, name string) {
	c, ok := dir.children[name]
	switch {
	case !ok:
	case c.kind == tar.TypeDir && c.inode.layer == t.current:
		t.opaque(c.inode)
	case c.kind == tar.TypeDir || c.layer != t.current:
		t.remove(dir, name)
	}
}

// opaque does its work once a layer: what comes later is the layer's own.
func (t *Tree) opaque(dir *inode) {
	if dir.opaqued == t.current {
		return
	}
	dir.opaqued = t.current
	for name := range dir.children {
		t.whiteout(dir, name)
	}
}

// path returns the first name of a file, without a leading slash.
func (n *inode) path() string {
	var parts []string
	for ; n.parent != nil; n = n.parent {
		parts = append(parts, n.name)
	}
	for i, j := 0, len(parts)-1; i < j; i, j = i+1, j-1 {
		parts[i], parts[j] = parts[j], parts[i]
	}
	return strings.Join(parts, "/")
}

func abbreviate(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}
