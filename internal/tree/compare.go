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

	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// Compare reads what Pack says of a directory without its content (PackOptions.Heads), and returns the name up to which all that is no directory is where Put would put it: regular
// files of the same size and time of the last change, links that lead to the same. It is empty where nothing is, and for what is no directory.
func Compare(ctx context.Context, r io.Reader, target string, o PutOptions) (have wire.Name, err error) {
	u := newUnpacker(ctx, r, o)
	first, err := u.next()
	if err == io.EOF {
		err = fmt.Errorf("%w: it is empty", ErrUnsafe)
	}
	if err != nil || first.Typeflag != tar.TypeDir {
		return "", err
	}
	at, err := locate(target, true, o)
	if err != nil {
		return "", err
	}
	root, err := os.OpenRoot(at.path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer root.Close()
	u.root, u.base = root, path.Clean(first.Name)
	for {
		header, err := u.next()
		if err == io.EOF {
			return have, nil
		}
		if err != nil {
			return "", err
		}
		name, err := u.local(header.Name)
		if err != nil {
			return "", err
		}
		u.progress.Files++
		if header.Typeflag == tar.TypeDir {
			continue
		}
		if !u.same(header, name) {
			return have, nil
		}
		have = wire.Name(name)
	}
}

// same says whether a file that is no directory is there already.
func (u *unpacker) same(header *tar.Header, name string) bool {
	info, err := u.root.Lstat(name)
	if err != nil {
		return false
	}
	switch header.Typeflag {
	case tar.TypeReg:
		size, err := recorded(header, sizeRecord)
		return err == nil && info.Mode().IsRegular() && info.Size() == size && info.ModTime().Equal(header.ModTime)
	case tar.TypeSymlink:
		target, err := u.root.Readlink(name)
		return err == nil && target == header.Linkname
	case tar.TypeLink:
		old, err := u.local(header.Linkname)
		if err != nil {
			return false
		}
		first, err := u.root.Lstat(old)
		return err == nil && os.SameFile(first, info)
	}
	return false
}
