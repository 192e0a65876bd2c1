package guest

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"net"
	"slices"

	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// FileEventKind is what happened to a file.
type FileEventKind string

// What can happen to a file.
const (
	FileCreated    FileEventKind = wire.FileCreated    // It is there; its content may not be.
	FileWritten    FileEventKind = wire.FileWritten    // Who had it open for writing has closed it.
	FileRemoved    FileEventKind = wire.FileRemoved    // One of its names is no more.
	FileRenamed    FileEventKind = wire.FileRenamed    // From From to Name. Without From it came from another directory, without Name it went to one.
	FileAttributes FileEventKind = wire.FileAttributes // Its mode, owner, times, number of names or extended attributes are others.
	// FileLost says that what happened before may not have been told: the connection was made again, or more happened than the guest's kernel keeps. Look at the directory.
	FileLost FileEventKind = wire.FileLost
)

// FileEvent is one change of a file in the guest. Its names are the guest's texts: print them with %q.
type FileEvent struct {
	Kind FileEventKind
	Name string // In the watched directory; empty for the directory itself, and for a name that is not UTF-8.
	From string // With FileRenamed: the name before.
	Dir  bool   // It is a directory.
	Self bool   // It is the watched directory itself.
}

// Watch tells what happens to a file of the guest, or in a directory but not below it, from this call on. Symbolic links in the path are followed. A file is watched by its name: also what takes its
// place is told of, and what is done to it under another name is not.
//
// The iteration ends when ctx ends, when it is left, or behind the FileRemoved of the directory itself; the connection is held until then, and when the iteration never begins, until ctx
// ends. A connection that breaks, as all do at a snapshot, is made again, and FileLost is told. As long as nobody takes events the guest's kernel keeps them, 16,384 by default, and then FileLost.
//
// ErrNotFound when nothing is at the path, microvm.ErrBusy when 64 watch already, and microvm.ErrUnsupported when the agent is too old. A directory that is gone when the connection was made again is
// ErrNotFound, too, from the iteration.
func Watch(ctx context.Context, d Dialer, guestPath string) (iter.Seq2[FileEvent, error], error) {
	fail := func(err error) error { return fmt.Errorf("watch %.200q in the guest: %w", guestPath, err) }
	if err := checkGuestPath(guestPath); err != nil {
		return nil, fail(err)
	}
	request := wire.FilesWatch{Path: absolute(guestPath)}
	f, err := newFeed(ctx, func(ctx context.Context) (net.Conn, *bufio.Reader, error) {
		conn, in, err := upgrade(ctx, d, wire.PathFilesWatch, &request)
		if err != nil {
			return nil, nil, err
		}
		dir, err := watching(ctx, conn, in)
		if err != nil {
			conn.Close()
			return nil, nil, err
		}
		request.File = !dir
		return conn, in, nil
	})
	if err != nil {
		return nil, fail(explain(ctx, d, err, wire.FeatureWatch))
	}
	return all(f, func(text []byte) ([]FileEvent, error) {
		if text == nil {
			return []FileEvent{{Kind: FileLost}}, nil
		}
		event, err := fileEvent(text)
		return []FileEvent{event}, err
	}, fail), nil
}

// watching waits until the watch is in place, and returns whether it is one of a directory.
func watching(ctx context.Context, conn net.Conn, in *bufio.Reader) (dir bool, err error) {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	text, err := heard(wire.NewReader(in))
	var e wire.FileEvent
	switch {
	case err == io.EOF:
		return false, fmt.Errorf("%w: a watch that ends before it begins", ErrAgent)
	case err != nil:
		return false, ended(ctx, err)
	case json.Unmarshal(text, &e) != nil || e.Kind != wire.FileWatching:
		return false, fmt.Errorf("%w: a watch that begins with %q", ErrAgent, clean(string(text)))
	}
	return e.Dir, nil
}

// fileEvent takes no name from a guest that is none.
func fileEvent(text []byte) (FileEvent, error) {
	var e wire.FileEvent
	err := json.Unmarshal(text, &e)
	known := []string{wire.FileCreated, wire.FileWritten, wire.FileRemoved, wire.FileRenamed, wire.FileAttributes, wire.FileLost}
	if err != nil || !slices.Contains(known, e.Kind) || e.Name != "" && !wire.ValidFileName(e.Name) || e.From != "" && !wire.ValidFileName(e.From) {
		return FileEvent{}, fmt.Errorf("%w: event %q", ErrAgent, clean(string(text)))
	}
	return FileEvent{Kind: FileEventKind(e.Kind), Name: e.Name, From: e.From, Dir: e.Dir, Self: e.Self}, nil
}
