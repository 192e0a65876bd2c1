package tree

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
)

// PutOptions are the options of Put and Unpack.
type PutOptions struct {
	Name     string // What the copy is called in a directory. For Put.
	Contents bool   // The content of a directory goes into the target, without Name. For Put.
	Exact    bool   // The target is the copy's name, whatever is there. For Put.

	Owners  bool // Keep numeric owners; without it all is this process's.
	Setuid  bool // Keep set-user-ID and set-group-ID bits and capabilities.
	Devices bool // Make devices and named pipes; without it they are an error.

	MaxBytes int64 // Of the tar, and of all content. 0 is no bound.
	MaxFiles int64 // 0 is no bound.

	// Again returns a stream that goes on at a position, after reading the one before has failed, or why there is none. Optional: the failure is the copy's.
	Again func(at Position, failed error) (io.Reader, error)
}

// Unpack unpacks a tar into a directory, which must be there.
func Unpack(ctx context.Context, r io.Reader, dir string, o PutOptions) (Progress, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return Progress{}, err
	}
	defer root.Close()
	u := newUnpacker(ctx, r, o)
	u.root = root
	err = errors.Join(u.all(), u.finish())
	return u.progress, err
}

// Put unpacks what Pack made of one path, as cp -a does: into the target where that is a directory, else as the target.
func Put(ctx context.Context, r io.Reader, target string, o PutOptions) (Progress, error) {
	u := newUnpacker(ctx, r, o)
	first, err := u.next()
	if err == io.EOF {
		err = fmt.Errorf("%w: it is empty", ErrUnsafe)
	}
	if err != nil {
		return u.progress, err
	}
	place, err := locate(target, first.Typeflag == tar.TypeDir, o)
	if err != nil {
		return u.progress, err
	}
	if first.Typeflag == tar.TypeDir {
		err = u.tree(place, first)
	} else {
		err = u.single(place, first)
	}
	return u.progress, err
}

// place is where a copy goes.
type place struct {
	path string
	kept bool // the caller's directory, which stays as it is
}

// locate says where a copy goes.
func locate(target string, isDir bool, o PutOptions) (place, error) {
	clean := filepath.Clean(target)
	info, err := os.Stat(target)
	if errors.Is(err, fs.ErrNotExist) && (isDir || !strings.HasSuffix(target, "/")) {
		return place{path: clean}, nil
	}
	if err != nil {
		return place{}, err
	}
	switch {
	case !info.IsDir() && isDir:
		return place{}, &fs.PathError{Op: "copy a directory to", Path: target, Err: syscall.ENOTDIR}
	case !info.IsDir():
		return place{path: clean}, nil
	case o.Exact && !isDir:
		return place{}, &fs.PathError{Op: "copy a file to", Path: target, Err: syscall.EISDIR}
	case o.Exact:
		return place{path: clean}, nil
	case o.Contents && isDir:
		return place{path: clean, kept: true}, nil
	}
	if o.Name == "" || o.Name == "." || o.Name == ".." || strings.ContainsAny(o.Name, "/\x00") {
		return place{}, fmt.Errorf("%w: the copy has no name (%q)", ErrUnsafe, o.Name)
	}
	return place{path: filepath.Join(clean, o.Name)}, nil
}

// single makes the one file that the tar has.
func (u *unpacker) single(at place, header *tar.Header) error {
	root, err := os.OpenRoot(filepath.Dir(at.path))
	if err != nil {
		return err
	}
	defer root.Close()
	u.root, u.alone, u.key = root, true, "."
	if header.Typeflag == tar.TypeLink {
		return fmt.Errorf("%w: a hard link to nothing", ErrUnsafe)
	}
	if err := u.make(header, filepath.Base(at.path)); err != nil {
		return err
	}
	switch _, err := u.next(); err {
	case io.EOF:
		return nil
	case nil:
		return fmt.Errorf("%w: more than one file", ErrUnsafe)
	default:
		return err
	}
}

// tree makes the directory that the tar begins with, and all that is in it.
func (u *unpacker) tree(at place, header *tar.Header) error {
	root, err := openTarget(at)
	if err != nil {
		return fmt.Errorf("%q: %w", at.path, cause(err))
	}
	defer root.Close()
	u.root = root
	u.base = path.Clean(header.Name)
	if !at.kept {
		u.key = "."
		if err := u.make(header, "."); err != nil {
			return err
		}
	}
	u.after = "."
	return errors.Join(u.all(), u.finish())
}

// openTarget opens a directory, and makes it where it is not there. A link is followed where the caller named it as the place, else only within its directory: an earlier
// copy may have made it.
func openTarget(at place) (*os.Root, error) {
	if at.kept || at.path == "/" || at.path == "." {
		return os.OpenRoot(at.path)
	}
	parent, err := os.OpenRoot(filepath.Dir(at.path))
	if err != nil {
		return nil, err
	}
	defer parent.Close()
	if err := parent.Mkdir(filepath.Base(at.path), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	return parent.OpenRoot(filepath.Base(at.path))
}
