package guest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"syscall"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// MaxDirEntries bounds how many entries a directory of an [FS] may have.
const MaxDirEntries = 1_000_000

// FS returns a directory of the guest, and what is below it, as a file system that is only read. It implements fs.ReadDirFS, fs.ReadFileFS, fs.StatFS, fs.SubFS and fs.ReadLinkFS; its
// files implement io.Seeker, and its directories fs.ReadDirFile. The end of ctx ends every call, also of files that are open.
//
// Symbolic links are followed, as os.DirFS does: they may lead out of the directory, and where to is the guest's word. A file is read as it is asked for, on a connection of its own from the
// first Read to Close, of which the agent has 64. Where a connection breaks, as all do at a snapshot, reading goes on in what is at the name then. FileInfo.Sys returns a [FileInfo].
//
// Errors are *fs.PathError, and match fs.ErrNotExist and fs.ErrPermission as well as ErrNotFound and ErrDenied. An agent that is too old to list directories is
// microvm.ErrUnsupported. ReadFile returns ErrTooMuch beyond [MaxReadFile]; so does a directory beyond [MaxDirEntries]. Names that are not UTF-8 are not seen.
func FS(ctx context.Context, d Dialer, dir string) fs.FS {
	return guestFS{ctx, d, path.Join("/", dir)}
}

// guestFS is a directory of a guest.
type guestFS struct {
	ctx    context.Context
	dialer Dialer
	dir    string
}

var (
	_ fs.ReadDirFS  = guestFS{}
	_ fs.ReadFileFS = guestFS{}
	_ fs.StatFS     = guestFS{}
	_ fs.SubFS      = guestFS{}
	_ fs.ReadLinkFS = guestFS{}
)

// at returns a name's path in the guest.
func (g guestFS) at(op, name string) (string, error) {
	if !fs.ValidPath(name) {
		return "", &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	if err := checkGuestPath(g.dir); err != nil {
		return "", &fs.PathError{Op: op, Path: name, Err: err}
	}
	at := path.Join(g.dir, name)
	if err := checkGuestPath(at); err != nil {
		return "", &fs.PathError{Op: op, Path: name, Err: fmt.Errorf("%w: %w", fs.ErrInvalid, err)}
	}
	return at, nil
}

// pathError makes an error of package io/fs.
func pathError(op, name string, err error) error {
	for sentinel, is := range map[error]error{ErrNotFound: fs.ErrNotExist, ErrDenied: fs.ErrPermission} {
		if errors.Is(err, sentinel) {
			err = fmt.Errorf("%w: %w", is, err)
		}
	}
	return &fs.PathError{Op: op, Path: name, Err: err}
}

// Open opens a file or a directory. Nothing is read yet.
func (g guestFS) Open(name string) (fs.File, error) {
	info, err := g.stat("open", name, true)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return &guestDir{fs: g, name: name, info: info}, nil
	}
	return &guestFile{fs: g, name: name, info: info}, nil
}

// Stat returns what is at a name, behind all symbolic links.
func (g guestFS) Stat(name string) (fs.FileInfo, error) {
	info, err := g.stat("stat", name, true)
	if err != nil {
		return nil, err
	}
	return info, nil
}

// Lstat is Stat, but of a symbolic link itself.
func (g guestFS) Lstat(name string) (fs.FileInfo, error) {
	info, err := g.stat("lstat", name, false)
	if err != nil {
		return nil, err
	}
	return info, nil
}

// ReadLink returns where a symbolic link leads to.
func (g guestFS) ReadLink(name string) (string, error) {
	info, err := g.stat("readlink", name, false)
	if err == nil && info.Mode()&fs.ModeSymlink == 0 {
		err = &fs.PathError{Op: "readlink", Path: name, Err: syscall.EINVAL}
	}
	if err != nil {
		return "", err
	}
	return info.file.Link, nil
}

func (g guestFS) stat(op, name string, follow bool) (*fileInfo, error) {
	at, err := g.at(op, name)
	if err != nil {
		return nil, err
	}
	f, err := askFor[wire.File](g.ctx, g.dialer, wire.PathFilesStat, wire.FilesStat{Path: at, Follow: follow})
	if err != nil {
		return nil, pathError(op, name, explain(g.ctx, g.dialer, err, wire.FeatureCopy))
	}
	return infoOf(path.Base(name), f), nil
}

// ReadFile returns the content of a regular file.
func (g guestFS) ReadFile(name string) ([]byte, error) {
	at, err := g.at("read", name)
	if err != nil {
		return nil, err
	}
	text, err := ReadFile(g.ctx, g.dialer, at)
	if err != nil {
		return nil, pathError("read", name, err)
	}
	return text, nil
}

// ReadDir returns what is in a directory, in the order of names.
func (g guestFS) ReadDir(name string) ([]fs.DirEntry, error) {
	return (&guestDir{fs: g, name: name}).ReadDir(-1)
}

// Sub returns a directory as a file system of its own.
func (g guestFS) Sub(dir string) (fs.FS, error) {
	at, err := g.at("sub", dir)
	if err != nil {
		return nil, err
	}
	return guestFS{g.ctx, g.dialer, at}, nil
}

// page returns a part of a directory, and where the next begins; empty at the end.
func (g guestFS) page(name, after string) (entries []fs.DirEntry, next string, err error) {
	at, err := g.at("readdir", name)
	if err != nil {
		return nil, "", err
	}
	listed, err := askFor[wire.FilesListed](g.ctx, g.dialer, wire.PathFilesList, wire.FilesList{Path: at, After: after})
	if err != nil {
		return nil, "", pathError("readdir", name, explain(g.ctx, g.dialer, err, wire.FeatureFS))
	}
	last := after
	for _, f := range listed.Files {
		if f.Name <= last || !wire.ValidFileName(f.Name) {
			return nil, "", pathError("readdir", name, fmt.Errorf("%w: entry %q after %q", ErrAgent, clean(f.Name), clean(last)))
		}
		last, f.Link = f.Name, "" // of which there is none in a list, and much to be kept of one that lies
		entries = append(entries, fs.FileInfoToDirEntry(infoOf(f.Name, f)))
	}
	if listed.Next != "" && (listed.Next < last || listed.Next <= after) {
		return nil, "", pathError("readdir", name, fmt.Errorf("%w: the next page is after %q", ErrAgent, clean(listed.Next)))
	}
	return entries, listed.Next, nil
}

// fileInfo is an fs.FileInfo.
type fileInfo struct {
	name string // not the guest's word
	file FileInfo
}

func infoOf(name string, f wire.File) *fileInfo {
	return &fileInfo{name, FileInfo{Name: name, Size: f.Size, Mode: fs.FileMode(f.Mode), ModTime: f.Time(), UID: f.UID, GID: f.GID, Link: f.Link}}
}

func (i *fileInfo) Name() string       { return i.name }
func (i *fileInfo) Size() int64        { return i.file.Size }
func (i *fileInfo) Mode() fs.FileMode  { return i.file.Mode }
func (i *fileInfo) ModTime() time.Time { return i.file.ModTime }
func (i *fileInfo) IsDir() bool        { return i.file.Mode.IsDir() }
func (i *fileInfo) Sys() any           { return i.file }
