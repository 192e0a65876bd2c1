// Package tree makes a tar of files, and files of a tar, for both sides of a copy between host and guest.
//
// There are only two verbs: [Pack] reads, [Put] and [Unpack] write.
//
// # Caveats
//
// What writes trusts nothing in the tar: all that it does is below its target, through os.Root, whatever names, links and races say. A symbolic link is made as it is, also
// one that leads out: it is who follows it later that must know whose it is.
package tree

import (
	"context"
	"errors"
	"io"
	"path"
	"path/filepath"
	"strings"
)

// Errors of a tar that is not taken; test with errors.Is.
var (
	// ErrUnsafe is a tar that would do what it may not: write outside of its target, make devices, or name what can't be a file.
	ErrUnsafe = errors.New("not taken from a tar")
	// ErrTooMuch is a tar that is larger than allowed.
	ErrTooMuch = errors.New("more than is allowed")
)

// Progress is how far a copy came.
type Progress struct {
	Files int64  // That are complete: everything that has a name, also directories.
	Bytes int64  // Of the content of files.
	File  string // The name of the last one that was begun, relative to what is copied.
}

// maxName bounds a name in a tar in bytes, as PATH_MAX does. maxKept bounds what is kept of directories until the end.
const (
	maxName = 4096
	maxKept = 64 << 20
)

// Source splits what a caller wrote as the source of a copy: its path, the name that it has in a directory, and whether its content is meant ("dir/.") or what a link
// leads to ("link/").
func Source(text string) (at, name string, contents, follow bool) {
	contents = text == "." || strings.HasSuffix(text, "/.")
	follow = contents || strings.HasSuffix(text, "/")
	at = filepath.Clean(text)
	name = filepath.Base(at)
	if name == "." || name == ".." {
		if absolute, err := filepath.Abs(at); err == nil {
			name = filepath.Base(absolute)
		}
	}
	return at, name, contents || name == "/", follow
}

// ended makes an io.Reader or io.Writer end with a context, between two calls.
type ended struct {
	ctx context.Context
	r   io.Reader
	w   io.Writer
}

func (e ended) Read(p []byte) (int, error) {
	if e.ctx.Err() != nil {
		return 0, context.Cause(e.ctx)
	}
	return e.r.Read(p)
}

func (e ended) Write(p []byte) (int, error) {
	if e.ctx.Err() != nil {
		return 0, context.Cause(e.ctx)
	}
	return e.w.Write(p)
}

// join is path.Join for a name that "." may be.
func join(dir, name string) string {
	if dir == "." {
		return name
	}
	return path.Join(dir, name)
}
