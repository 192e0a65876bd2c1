package guest

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"syscall"

	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// maxEmpty bounds how many pages of a directory may have nothing, each of which says that there are more.
const maxEmpty = 100

// guestDir is a directory that is open.
type guestDir struct {
	fs     guestFS
	name   string
	info   *fileInfo
	seen   int
	after  string
	rest   []fs.DirEntry // of the present page
	all    bool          // there is no further page
	empty  int           // pages that had nothing
	closed bool
}

func (d *guestDir) Stat() (fs.FileInfo, error) {
	if d.closed {
		return nil, &fs.PathError{Op: "stat", Path: d.name, Err: fs.ErrClosed}
	}
	return d.info, nil
}

func (d *guestDir) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: d.name, Err: syscall.EISDIR}
}

func (d *guestDir) Close() error {
	if d.closed {
		return &fs.PathError{Op: "close", Path: d.name, Err: fs.ErrClosed}
	}
	d.closed = true
	return nil
}

// ReadDir returns the next n entries, or all that are left.
func (d *guestDir) ReadDir(n int) (entries []fs.DirEntry, err error) {
	if d.closed {
		return nil, &fs.PathError{Op: "readdir", Path: d.name, Err: fs.ErrClosed}
	}
	entries = []fs.DirEntry{}
	for n <= 0 || len(entries) < n {
		if len(d.rest) == 0 && !d.all {
			if err := d.turn(); err != nil {
				return entries, err
			}
			continue
		}
		if len(d.rest) == 0 {
			break
		}
		take := len(d.rest)
		if n > 0 {
			take = min(take, n-len(entries))
		}
		entries, d.rest = append(entries, d.rest[:take]...), d.rest[take:]
	}
	if n > 0 && len(entries) == 0 {
		return entries, io.EOF
	}
	return entries, nil
}

// turn gets the next page.
func (d *guestDir) turn() (err error) {
	if d.rest, d.after, err = d.fs.page(d.name, d.after); err != nil {
		return err
	}
	d.all = d.after == ""
	if len(d.rest) == 0 && !d.all { // all of it may have been removed meanwhile
		if d.empty++; d.empty > maxEmpty {
			return &fs.PathError{Op: "readdir", Path: d.name, Err: fmt.Errorf("%w: more than %d pages of nothing", ErrAgent, maxEmpty)}
		}
	}
	if d.seen += len(d.rest); d.seen > MaxDirEntries {
		d.rest = nil
		return &fs.PathError{Op: "readdir", Path: d.name, Err: fmt.Errorf("%w: more than %d entries", ErrTooMuch, MaxDirEntries)}
	}
	return nil
}

// guestFile is a file that is open.
type guestFile struct {
	fs     guestFS
	name   string
	info   *fileInfo
	offset int64
	stream *download // from the offset on; nil before the first Read, and after Seek
	closed bool
}

var _ io.Seeker = (*guestFile)(nil)

func (f *guestFile) Stat() (fs.FileInfo, error) {
	if f.closed {
		return nil, f.fail("stat", fs.ErrClosed)
	}
	return f.info, nil
}

func (f *guestFile) fail(op string, err error) error { return pathError(op, f.name, err) }

// Read reads what the guest has now, which may be less or more than Stat has told.
func (f *guestFile) Read(p []byte) (int, error) {
	if f.closed {
		return 0, f.fail("read", fs.ErrClosed)
	}
	if len(p) == 0 {
		return 0, nil
	}
	n, err := persist(f.fs.ctx, reconnectPatience, func() (int, error) { return f.read(p) })
	if err != nil && err != io.EOF {
		err = f.fail("read", err)
	}
	return n, err
}

// read is Read on the present connection, or on a new one where that has broken.
func (f *guestFile) read(p []byte) (int, error) {
	if f.stream == nil {
		if err := f.begin(); err != nil {
			return 0, err
		}
	}
	n, err := f.stream.Read(p)
	f.offset += int64(n)
	if errors.Is(err, errBroken) {
		f.stream.Close()
		f.stream = nil
		if n > 0 {
			err = nil
		}
	}
	return n, err
}

// begin asks for the content from the offset on.
func (f *guestFile) begin() error {
	at, err := f.fs.at("read", f.name)
	if err != nil {
		return err
	}
	if f.offset > 0 { // which an older agent would not look at
		if err := require(f.fs.ctx, f.fs.dialer, wire.FeatureFS); err != nil {
			return err
		}
	}
	f.stream, err = receive(f.fs.ctx, f.fs.dialer, wire.FilesRead{Path: at, Raw: true, Offset: f.offset})
	return err
}

// Seek moves where the next Read begins; the end is where it is now.
func (f *guestFile) Seek(offset int64, whence int) (int64, error) {
	if f.closed {
		return 0, f.fail("seek", fs.ErrClosed)
	}
	switch whence {
	case io.SeekStart:
	case io.SeekCurrent:
		offset += f.offset
	case io.SeekEnd:
		info, err := f.fs.stat("seek", f.name, true)
		if err != nil {
			return 0, err
		}
		offset += info.Size()
	default:
		return 0, f.fail("seek", fs.ErrInvalid)
	}
	if offset < 0 {
		return 0, f.fail("seek", fs.ErrInvalid)
	}
	if offset != f.offset && f.stream != nil {
		f.stream.Close()
		f.stream = nil
	}
	f.offset = offset
	return offset, nil
}

// Close ends the connection.
func (f *guestFile) Close() error {
	if f.closed {
		return f.fail("close", fs.ErrClosed)
	}
	f.closed = true
	if f.stream != nil {
		return f.stream.Close()
	}
	return nil
}
