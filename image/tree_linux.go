package image

import (
	"archive/tar"
	"errors"
	"io/fs"
	"strings"
	"syscall"
)

// linked returns the first name of a file that was added under another one already.
func (t *treeWriter) linked(info fs.FileInfo, name string) (string, bool) {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || info.IsDir() || stat.Nlink < 2 {
		return "", false
	}
	key := inode{uint64(stat.Dev), stat.Ino}
	first, ok := t.seen[key]
	if !ok {
		t.seen[key] = name
	}
	return first, ok
}

// addXattrs adds the extended attributes of a file that is no link (xattr(7)).
func addXattrs(header *tar.Header, path string) error {
	if header.Typeflag != tar.TypeReg && header.Typeflag != tar.TypeDir {
		return nil
	}
	list := make([]byte, 64<<10)
	n, err := syscall.Listxattr(path, list)
	if errors.Is(err, syscall.ENOTSUP) {
		return nil
	}
	if err != nil {
		return &fs.PathError{Op: "listxattr", Path: path, Err: err}
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(list[:n]), "\x00"), "\x00") {
		if name == "" {
			continue
		}
		value := make([]byte, 64<<10)
		n, err := syscall.Getxattr(path, name, value)
		if err != nil {
			return &fs.PathError{Op: "getxattr " + name, Path: path, Err: err}
		}
		if header.PAXRecords == nil {
			header.PAXRecords = map[string]string{}
		}
		header.PAXRecords[xattrPrefix+name] = string(value[:n])
	}
	return nil
}
