//go:build linux

package agent

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// pairPatience is how long the second half of a renaming may come after the first: the kernel queues them one by one.
const pairPatience = 10 * time.Millisecond

// watch tells the host what happens to a file, or in a directory.
func (s *Server) watch(w http.ResponseWriter, r *http.Request) {
	var request wire.FilesWatch
	if !decode(w, r, &request) || !upgrades(w, r) {
		return
	}
	if err := checkPath(request.Path); err != nil {
		fail(w, err)
		return
	}
	if err := s.admit(); err != nil {
		fail(w, err)
		return
	}
	defer s.dismiss()
	watch, err := openWatch(&request)
	if err != nil {
		fail(w, fileError(err))
		return
	}
	defer watch.changes.Close()
	s.tell(w, watch.tell, func() { watch.changes.Close() })
}

// fileWatch is a directory that is watched. The kernel keeps what the host has not heard yet, as much as fs.inotify.max_queued_events allows, and says when it was more.
type fileWatch struct {
	changes *os.File
	only    string // of what is in the directory; empty for all of it
	moved   *fileChange
}

// openWatch watches a directory, or the one that a file is in: so a file is watched also when another takes its place.
func openWatch(request *wire.FilesWatch) (*fileWatch, error) {
	dir, only, err := watched(request)
	if err != nil {
		return nil, err
	}
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if errors.Is(err, unix.EMFILE) {
		return nil, refuse(wire.CodeBusy, "inotify: %w (fs.inotify.max_user_instances is too low)", err)
	}
	if err != nil {
		return nil, err
	}
	const what = unix.IN_CREATE | unix.IN_CLOSE_WRITE | unix.IN_DELETE | unix.IN_MOVE | unix.IN_ATTRIB | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_ONLYDIR
	if _, err := unix.InotifyAddWatch(fd, dir, what); err != nil {
		unix.Close(fd)
		if errors.Is(err, unix.ENOSPC) { // is not about a disk
			return nil, refuse(wire.CodeBusy, "inotify: fs.inotify.max_user_watches is too low")
		}
		return nil, &os.PathError{Op: "watch", Path: dir, Err: err}
	}
	return &fileWatch{changes: os.NewFile(uintptr(fd), "inotify"), only: only}, nil
}

// watched returns the directory to watch, and the name of the file in it when it is one.
func watched(request *wire.FilesWatch) (dir, only string, err error) {
	at, err := filepath.EvalSymlinks(request.Path)
	if request.File && errors.Is(err, os.ErrNotExist) {
		at, err = destination(filepath.Clean(request.Path))
	}
	if err != nil {
		return "", "", err
	}
	if request.File {
		return filepath.Dir(at), filepath.Base(at), nil
	}
	info, err := os.Stat(at)
	if err != nil || info.IsDir() {
		return at, "", err
	}
	return filepath.Dir(at), filepath.Base(at), nil
}

// destination returns where a file would be that is not there: behind links to it, in a directory that is there.
func destination(at string) (string, error) {
	for range 40 { // as many links as the kernel follows
		dir, err := filepath.EvalSymlinks(filepath.Dir(at))
		if err != nil {
			return "", err
		}
		at = filepath.Join(dir, filepath.Base(at))
		target, err := os.Readlink(at)
		if err != nil {
			return at, nil
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(dir, target)
		}
		at = target
	}
	return "", unix.ELOOP
}

// tell writes what happens as frames, until the watch is closed, the directory is gone, or the host is.
func (f *fileWatch) tell(host io.Writer) {
	if !say(host, wire.FileEvent{Kind: wire.FileWatching, Dir: f.only == ""}) {
		return
	}
	buffer := make([]byte, 16<<10)
	for {
		n, err := f.read(buffer)
		changes := changesOf(buffer[:n])
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		for _, event := range f.events(changes, err != nil) {
			if !say(host, event) || event.Self && event.Kind == wire.FileRemoved {
				return
			}
		}
	}
}

// read waits for changes; not for long while half of a renaming is there.
func (f *fileWatch) read(buffer []byte) (int, error) {
	patience := time.Time{}
	if f.moved != nil {
		patience = time.Now().Add(pairPatience)
	}
	f.changes.SetReadDeadline(patience)
	return f.changes.Read(buffer)
}

// fileChange is one of inotify's (inotify(7)).
type fileChange struct {
	mask, cookie uint32
	name         string
}

// changesOf reads what the kernel has written.
func changesOf(text []byte) (all []fileChange) {
	const header = unix.SizeofInotifyEvent
	for len(text) >= header {
		c := fileChange{mask: binary.NativeEndian.Uint32(text[4:]), cookie: binary.NativeEndian.Uint32(text[8:])}
		end := header + int(min(binary.NativeEndian.Uint32(text[12:]), uint32(len(text)-header)))
		c.name, _, _ = strings.Cut(string(text[header:end]), "\x00")
		all, text = append(all, c), text[end:]
	}
	return all
}

// events makes of changes what is told of them. Half of a renaming waits for its other half, unless it is late.
func (f *fileWatch) events(changes []fileChange, late bool) (all []wire.FileEvent) {
	for _, c := range changes {
		if f.moved != nil && c.mask&unix.IN_MOVED_TO != 0 && c.cookie == f.moved.cookie {
			all = f.add(all, event(wire.FileRenamed, c.mask, c.name, f.moved.name))
			f.moved = nil
			continue
		}
		all = f.flush(all)
		if c.mask&unix.IN_MOVED_FROM != 0 {
			f.moved = &c
			continue
		}
		for _, kind := range kinds {
			if c.mask&kind.mask != 0 {
				e := event(kind.kind, c.mask, c.name, "")
				e.Self = c.name == "" && kind.kind != wire.FileLost
				all = f.add(all, e)
				break
			}
		}
	}
	if late {
		all = f.flush(all)
	}
	return all
}

// kinds says what a change is told as. The kernel says IN_IGNORED last, also for a file system that was unmounted.
var kinds = []struct {
	mask uint32
	kind string
}{
	{unix.IN_Q_OVERFLOW, wire.FileLost}, {unix.IN_IGNORED, wire.FileRemoved}, {unix.IN_MOVE_SELF, wire.FileRenamed}, {unix.IN_MOVED_TO, wire.FileRenamed}, {unix.IN_CREATE, wire.FileCreated},
	{unix.IN_CLOSE_WRITE, wire.FileWritten}, {unix.IN_DELETE, wire.FileRemoved}, {unix.IN_ATTRIB, wire.FileAttributes},
}

// event tells no name that JSON would change.
func event(kind string, mask uint32, name, from string) wire.FileEvent {
	e := wire.FileEvent{Kind: kind, Name: name, From: from, Dir: mask&unix.IN_ISDIR != 0}
	if !utf8.ValidString(name) {
		e.Name = ""
	}
	if !utf8.ValidString(from) {
		e.From = ""
	}
	return e
}

// flush tells of a file that went to another directory.
func (f *fileWatch) flush(all []wire.FileEvent) []wire.FileEvent {
	if f.moved == nil {
		return all
	}
	c := f.moved
	f.moved = nil
	return f.add(all, event(wire.FileRenamed, c.mask, "", c.name))
}

// add leaves out what is about another file than the one that is watched. What its directory's end is to it, its own is.
func (f *fileWatch) add(all []wire.FileEvent, e wire.FileEvent) []wire.FileEvent {
	ends := e.Self && e.Kind == wire.FileRemoved || e.Kind == wire.FileLost
	if f.only != "" && !ends && (e.Self || e.Name != f.only && e.From != f.only) {
		return all
	}
	return append(all, e)
}

// say writes one event.
func say(host io.Writer, event any) bool {
	text, err := json.Marshal(event)
	if err != nil || len(text) > wire.MaxPayload {
		return false
	}
	_, err = host.Write(wire.Append(nil, wire.Event, text))
	return err == nil
}
