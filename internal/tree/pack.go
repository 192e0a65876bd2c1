package tree

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// PackOptions are the options of Pack.
type PackOptions struct {
	Name    string // What the path is called in the tar; what is below it begins with that. "." is good for a directory.
	Follow  bool   // Take what a symbolic link leads to: of the path itself, not of what is below.
	Devices bool   // Take devices and named pipes too; without it they are an error. Sockets are left out.

	From  Position  // Where to go on.
	Have  wire.Name // All that is no directory is complete up to this name. Empty for nothing.
	Heads bool      // Leave the content of files out: for Compare.
}

// Pack writes what is at a path as a tar: directories before what is in them, in the order of names.
func Pack(ctx context.Context, w io.Writer, at string, o PackOptions) (Progress, error) {
	stat := os.Lstat
	if o.Follow {
		stat = os.Stat
	}
	info, err := stat(at)
	if err != nil {
		return Progress{}, err
	}
	dir, name := at, "."
	if !info.IsDir() {
		if o.Follow {
			if at, err = filepath.EvalSymlinks(at); err != nil {
				return Progress{}, err
			}
		}
		dir, name = filepath.Split(filepath.Clean(at))
	}
	root, err := os.OpenRoot(filepath.Clean(dir))
	if err != nil {
		return Progress{}, err
	}
	defer root.Close()
	buffer := bufio.NewWriterSize(ended{ctx: ctx, w: w}, 64<<10)
	p := &packer{ctx: ctx, root: root, out: w, buffer: buffer, tar: tar.NewWriter(buffer), o: o, seen: map[inode]string{}}
	if err := p.add(name, o.Name); err != nil {
		return p.progress, err
	}
	if err := p.tar.Close(); err != nil {
		return p.progress, err
	}
	return p.progress, buffer.Flush()
}

// packer packs what is below a root.
type packer struct {
	ctx      context.Context
	root     *os.Root
	out      io.Writer
	buffer   *bufio.Writer // to out
	tar      *tar.Writer   // to the buffer
	o        PackOptions
	seen     map[inode]string // the first name of a file that has several
	progress Progress
}

// inode tells files apart that have several names.
type inode struct{ device, number uint64 }

// add adds a file, and what is below it.
func (p *packer) add(name, as string) error {
	if p.ctx.Err() != nil {
		return context.Cause(p.ctx)
	}
	p.progress.File = name
	info, err := p.root.Lstat(name)
	if err != nil {
		return err
	}
	header, err := p.header(info, name, as)
	if header == nil || err != nil {
		return err
	}
	key := p.key(as)
	switch {
	case header.Typeflag == tar.TypeDir:
		return p.directory(header, name, as)
	case p.skip(key, false):
		p.progress.Bytes += header.Size
	case header.Typeflag == tar.TypeReg && p.o.Heads:
		record(header, sizeRecord, header.Size)
		header.Size = 0
		err = p.tar.WriteHeader(header)
	case header.Typeflag == tar.TypeReg:
		err = p.content(header, info, name, key)
	default:
		err = p.tar.WriteHeader(header)
	}
	if err == nil {
		p.progress.Files++
	}
	return err
}

// header returns what the tar says of a file; nil for one that is left out.
func (p *packer) header(info fs.FileInfo, name, as string) (*tar.Header, error) {
	if info.Mode()&fs.ModeSocket != 0 {
		return nil, nil // nobody would listen
	}
	if info.Mode()&(fs.ModeDevice|fs.ModeNamedPipe|fs.ModeIrregular) != 0 && !p.o.Devices {
		return nil, &fs.PathError{Op: "copy", Path: name, Err: fmt.Errorf("%w: it is a device or a named pipe", ErrUnsafe)}
	}
	target := ""
	if info.Mode()&fs.ModeSymlink != 0 {
		var err error
		if target, err = p.root.Readlink(name); err != nil {
			return nil, err
		}
	}
	header, err := tar.FileInfoHeader(info, target)
	if err != nil {
		return nil, err
	}
	header.Name, header.Format, header.Uname, header.Gname = as, tar.FormatPAX, "", ""
	header.AccessTime, header.ChangeTime = time.Time{}, time.Time{}
	if info.IsDir() {
		header.Name += "/"
	}
	if key, ok := linked(info); ok {
		if first, ok := p.seen[key]; ok {
			header.Typeflag, header.Linkname, header.Size = tar.TypeLink, first, 0
		} else {
			p.seen[key] = as
		}
	}
	return header, nil
}

// directory adds a directory and what is in it.
func (p *packer) directory(header *tar.Header, name, as string) error {
	dir, err := p.open(name, nil)
	if err != nil {
		return err
	}
	names, err := dir.Readdirnames(-1)
	readXattrs(header, dir)
	dir.Close()
	if err != nil {
		return &fs.PathError{Op: "read", Path: name, Err: cause(err)}
	}
	if !p.skip(p.key(as), true) {
		if err := p.tar.WriteHeader(header); err != nil {
			return err
		}
	}
	p.progress.Files++
	slices.Sort(names)
	for _, one := range names {
		if err := p.add(join(name, one), as+"/"+one); err != nil && !(errors.Is(err, fs.ErrNotExist) && p.gone(join(name, one))) {
			return err
		}
	}
	return nil
}

// gone says that a file was removed while its directory was read, which is nobody's error.
func (p *packer) gone(name string) bool {
	_, err := p.root.Lstat(name)
	return errors.Is(err, fs.ErrNotExist) && p.progress.File == name
}

// open opens a file that was looked at, without waiting for anybody; info, when it is not nil, says which it must be.
func (p *packer) open(name string, info fs.FileInfo) (*os.File, error) {
	f, err := p.root.OpenFile(name, os.O_RDONLY|noWait, 0)
	if err != nil {
		return nil, err
	}
	if info != nil {
		if now, err := f.Stat(); err != nil || !os.SameFile(info, now) {
			f.Close()
			return nil, &fs.PathError{Op: "copy", Path: name, Err: errors.New("another file was put in its place meanwhile")}
		}
	}
	return f, nil
}

// content adds a regular file: as many bytes as it had when it was looked at.
func (p *packer) content(header *tar.Header, info fs.FileInfo, name, key string) error {
	f, err := p.open(name, info)
	if err != nil {
		return err
	}
	defer f.Close()
	readXattrs(header, f)
	if err := p.goOn(header, f, info, key); err != nil {
		return err
	}
	if err := p.tar.WriteHeader(header); err != nil {
		return err
	}
	n, err := p.move(f, header.Size)
	p.progress.Bytes += n
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = errors.New("it became shorter while it was read")
	}
	if err != nil {
		return &fs.PathError{Op: "copy", Path: name, Err: cause(err)}
	}
	return nil
}

// fileSender is a writer that knows a shorter way for a file's content: io.ErrUnexpectedEOF when there is less.
type fileSender interface {
	SendFile(f *os.File, n int64) (int64, error)
}

// direct is the size from which on a file goes the shorter way, in bytes.
const direct = 256 << 10

// move writes the content of a file whose header was written.
func (p *packer) move(f *os.File, size int64) (moved int64, err error) {
	sender, ok := p.out.(fileSender)
	if !ok || size < direct {
		return io.CopyN(p.tar, f, size)
	}
	if err := p.buffer.Flush(); err != nil {
		return 0, err
	}
	for moved < size && err == nil {
		if p.ctx.Err() != nil {
			return moved, context.Cause(p.ctx)
		}
		var sent int64
		sent, err = sender.SendFile(f, min(size-moved, direct))
		moved += sent
	}
	if err == nil { // the tar's writer has not seen the content, so what fills its last block is written here, and another goes on
		_, err = p.buffer.Write(make([]byte, -size&511))
		p.tar = tar.NewWriter(p.buffer)
	}
	return moved, err
}

// escapes is what os.Root says of a name that leads out; it has no error to test for.
const escapes = "path escapes from parent"

// cause takes the names off an error that another name is put on.
func cause(err error) error {
	for err != nil {
		named, linked := (*fs.PathError)(nil), (*os.LinkError)(nil)
		switch {
		case errors.As(err, &named):
			err = named.Err
		case errors.As(err, &linked):
			err = linked.Err
		case err.Error() == escapes:
			return fmt.Errorf("%w: it leads out of the target", ErrUnsafe)
		default:
			return err
		}
	}
	return nil
}
