package image

import (
	"archive/tar"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// treeWriter writes a directory as a tar: names relative to it, hard links as links to their first name.
type treeWriter struct {
	tar  *tar.Writer
	dir  string
	seen map[inode]string
}

// inode tells files apart that have several names.
type inode struct{ device, number uint64 }

func (t *treeWriter) add(path string, entry fs.DirEntry, err error) error {
	if err != nil {
		return err
	}
	info, err := entry.Info()
	if err != nil {
		return err
	}
	if info.Mode()&fs.ModeSocket != 0 {
		return nil // nobody listens in an image
	}
	name, err := filepath.Rel(t.dir, path)
	if err != nil {
		return err
	}
	target := ""
	if info.Mode()&fs.ModeSymlink != 0 {
		if target, err = os.Readlink(path); err != nil {
			return err
		}
	}
	header, err := tar.FileInfoHeader(info, target)
	if err != nil {
		return err
	}
	header.Name, header.Format, header.Uname, header.Gname = filepath.ToSlash(name), tar.FormatPAX, "", ""
	header.AccessTime, header.ChangeTime = time.Time{}, time.Time{} // the same files make the same tar
	if info.IsDir() {
		header.Name += "/"
	}
	if err := addXattrs(header, path); err != nil {
		return err
	}
	if first, ok := t.linked(info, header.Name); ok {
		header.Typeflag, header.Linkname, header.Size = tar.TypeLink, first, 0
	}
	if err := t.tar.WriteHeader(header); err != nil {
		return err
	}
	if header.Typeflag != tar.TypeReg {
		return nil
	}
	return t.content(path)
}

func (t *treeWriter) content(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(t.tar, f)
	return err
}
