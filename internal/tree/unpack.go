package tree

import (
	"archive/tar"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// unpacker makes files of a tar, below a root.
type unpacker struct {
	ctx      context.Context
	root     *os.Root
	raw      *bounded
	tar      *tar.Reader
	o        PutOptions
	base     string // what all names begin with; empty for none
	progress Progress
	dirs     []*tar.Header // whose attributes are set at the end, by their names below the root
	kept     int           // bytes of those
	block    []byte        // of a file that is written
	key      string        // the present one's name, as a Position has it
	after    string        // the last one's that is complete
	part     Position      // of a file that is there in part, but for After
	alone    bool          // it is one file, and no directory
	pending  *tar.Header   // what next returns next; nil for what the tar has
}

func newUnpacker(ctx context.Context, r io.Reader, o PutOptions) *unpacker {
	raw := &bounded{r: ended{ctx: ctx, r: r}, most: o.MaxBytes}
	return &unpacker{ctx: ctx, raw: raw, tar: tar.NewReader(raw), o: o, block: make([]byte, 64<<10)}
}

// bounded ends a reader with an error after so many bytes.
type bounded struct {
	r      io.Reader
	read   int64
	most   int64
	failed error // of r, but for its end
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.most > 0 && b.read >= b.most {
		return 0, fmt.Errorf("%w: a tar of more than %d bytes", ErrTooMuch, b.most)
	}
	if b.most > 0 {
		p = p[:min(int64(len(p)), b.most-b.read)]
	}
	n, err := b.r.Read(p)
	b.read += int64(n)
	if err != nil && err != io.EOF {
		b.failed = err
	}
	return n, err
}

// all makes everything that the tar has.
func (u *unpacker) all() error {
	for {
		header, err := u.next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		name, err := u.local(header.Name)
		if err != nil {
			return err
		}
		u.key = name
		if err := u.make(header, name); err != nil {
			return err
		}
	}
}

// keyOf returns a file's name as a Position has it.
func (u *unpacker) keyOf(header *tar.Header) (string, error) {
	if u.alone {
		return ".", nil
	}
	return u.local(header.Name)
}

// next returns the next file of the tar.
func (u *unpacker) next() (*tar.Header, error) {
	for {
		if header := u.pending; header != nil {
			u.pending = nil
			return header, nil
		}
		header, err := u.tar.Next()
		if err != nil && err != io.EOF && u.cut() {
			if err := u.again(); err != nil {
				return nil, err
			}
			continue
		}
		if errors.Is(err, tar.ErrHeader) || errors.Is(err, tar.ErrFieldTooLong) {
			err = fmt.Errorf("%w: %w", ErrUnsafe, err)
		}
		if err != nil {
			return nil, err
		}
		if header.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		if u.o.MaxFiles > 0 && u.progress.Files >= u.o.MaxFiles {
			return nil, fmt.Errorf("%w: more than %d files", ErrTooMuch, u.o.MaxFiles)
		}
		if u.o.MaxBytes > 0 && header.Size > u.o.MaxBytes-u.progress.Bytes { // a sparse one claims more than the tar has
			return nil, fmt.Errorf("%w: content of more than %d bytes", ErrTooMuch, u.o.MaxBytes)
		}
		return header, nil
	}
}

// local makes a name of the tar one below the root.
func (u *unpacker) local(name string) (string, error) {
	clean := path.Clean(name)
	if u.base != "" && u.base != "." {
		rest, ok := strings.CutPrefix(clean+"/", u.base+"/")
		if !ok {
			return "", fmt.Errorf("%w: name %q is not below %q", ErrUnsafe, short(name), short(u.base))
		}
		clean = path.Clean(strings.TrimSuffix(rest, "/"))
	}
	if len(name) > maxName || strings.ContainsRune(name, 0) || !filepath.IsLocal(clean) {
		return "", fmt.Errorf("%w: name %q leads out, or is too long", ErrUnsafe, short(name))
	}
	return clean, nil
}

// make makes one file. What is there under its name is replaced, but for a directory.
func (u *unpacker) make(header *tar.Header, name string) error {
	u.progress.File = name
	var err error
	switch header.Typeflag {
	case tar.TypeDir:
		err = u.directory(header, name)
	case tar.TypeReg, tar.TypeGNUSparse, tar.TypeLink, tar.TypeSymlink, tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		err = u.replace(header, name)
	default:
		err = fmt.Errorf("%w: it is of type %q", ErrUnsafe, header.Typeflag)
	}
	if errors.Is(err, errVanished) && !u.alone {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%q: %w", short(name), cause(err))
	}
	u.progress.Files++
	u.after = u.key
	return nil
}

// directory makes a directory that can be written to; what else the tar says of it comes at the end.
func (u *unpacker) directory(header *tar.Header, name string) error {
	err := u.root.MkdirAll(name, 0o700)
	if err != nil && name != "." {
		return err
	}
	info, err := u.root.Stat(name)
	if err != nil {
		return err
	}
	if info.Mode()&0o700 != 0o700 { // as an earlier copy left it
		if err := u.root.Chmod(name, info.Mode().Perm()|0o700); err != nil {
			return err
		}
	}
	header.Name = name
	u.dirs = append(u.dirs, header)
	for key, value := range header.PAXRecords {
		u.kept += len(key) + len(value)
	}
	if u.kept += len(name) + 512; u.kept > maxKept {
		return fmt.Errorf("%w: directories", ErrTooMuch)
	}
	return nil
}

// replace makes a file under another name, and then gives it its own: it is never there in part, and a link under that name is never followed.
func (u *unpacker) replace(header *tar.Header, name string) error {
	if name == "." {
		return fmt.Errorf("%w: the target is a directory, and no other file", ErrUnsafe)
	}
	dir := path.Dir(name)
	if err := u.root.MkdirAll(dir, 0o755); err != nil && dir != "." {
		return err
	}
	temporary := join(dir, ".copy-"+rand.Text())
	err := u.create(header, temporary)
	if err == nil {
		err = u.root.Rename(temporary, name)
	}
	if err != nil || header.Typeflag == tar.TypeLink { // two names of one file stay both when one is renamed to the other
		u.root.Remove(temporary)
	}
	return err
}

// create makes anything but a directory.
func (u *unpacker) create(header *tar.Header, name string) error {
	switch header.Typeflag {
	case tar.TypeLink:
		old, err := u.local(header.Linkname)
		if err != nil {
			return err
		}
		return u.root.Link(old, name)
	case tar.TypeSymlink:
		if err := u.root.Symlink(header.Linkname, name); err != nil {
			return err
		}
		if u.o.Owners {
			return u.root.Lchown(name, header.Uid, header.Gid)
		}
		return nil
	case tar.TypeReg, tar.TypeGNUSparse:
		return u.regular(header, name)
	}
	if !u.o.Devices {
		return fmt.Errorf("%w: it is a device or a named pipe", ErrUnsafe)
	}
	if err := makeNode(u.root, name, header); err != nil {
		return err
	}
	return u.attributes(header, name)
}

// regular makes a regular file.
func (u *unpacker) regular(header *tar.Header, name string) error {
	f, err := u.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if offset, err := recorded(header, offsetRecord); err != nil || offset != 0 {
		return cmp.Or(err, fmt.Errorf("%w: it goes on where nothing has begun", ErrUnsafe))
	}
	if err := u.fill(f, header); err != nil {
		return err
	}
	if u.o.Owners {
		if err := f.Chown(header.Uid, header.Gid); err != nil {
			return err
		}
	}
	if err := writeXattrs(header, f, u.o.Setuid); err != nil {
		return err
	}
	if err := f.Chmod(u.mode(header)); err != nil { // after the owner, whose change takes bits away
		return err
	}
	if err := f.Close(); err != nil { // some file systems say only now that there is no room
		return err
	}
	return u.times(header, name)
}

// attributes gives a file that is there its owner, mode and time.
func (u *unpacker) attributes(header *tar.Header, name string) error {
	if u.o.Owners {
		if err := u.root.Chown(name, header.Uid, header.Gid); err != nil {
			return err
		}
	}
	if err := u.root.Chmod(name, u.mode(header)); err != nil {
		return err
	}
	return u.times(header, name)
}

// times gives a file its time, where a file system can tell it.
func (u *unpacker) times(header *tar.Header, name string) error {
	mtime := header.ModTime
	if year := mtime.Year(); year < 1902 || year > 2261 { // beyond, nanoseconds since 1970 are no number of Go's
		mtime = time.Unix(0, 0)
	}
	return u.root.Chtimes(name, time.Time{}, mtime)
}

// mode is what a file may get of the mode that it had.
func (u *unpacker) mode(header *tar.Header) fs.FileMode {
	mode := header.FileInfo().Mode()
	allowed := fs.ModePerm | fs.ModeSticky
	if u.o.Setuid {
		allowed |= fs.ModeSetuid | fs.ModeSetgid
	}
	return mode & allowed
}

// finish gives directories their attributes, the deepest first: what is made in one changes its time. It goes on after an error: a copy that failed leaves nothing closed.
func (u *unpacker) finish() (first error) {
	for _, header := range slices.Backward(u.dirs) {
		if err := u.finishOne(header); err != nil && first == nil {
			first = fmt.Errorf("%q: %w", short(header.Name), cause(err))
		}
	}
	return first
}

func (u *unpacker) finishOne(header *tar.Header) error {
	dir, err := u.root.OpenFile(header.Name, os.O_RDONLY|noWait, 0)
	if err != nil {
		return err
	}
	defer dir.Close()
	if info, err := dir.Stat(); err != nil || !info.IsDir() {
		return fmt.Errorf("it is no directory any more: %w", errors.Join(err, fs.ErrExist))
	}
	if u.o.Owners {
		if err := dir.Chown(header.Uid, header.Gid); err != nil {
			return err
		}
	}
	if err := writeXattrs(header, dir, u.o.Setuid); err != nil {
		return err
	}
	if err := u.times(header, header.Name); err != nil {
		return err
	}
	return dir.Chmod(u.mode(header))
}

// short keeps names printable in size.
func short(name string) string {
	const most = 200
	if len(name) > most {
		return name[:most] + "…"
	}
	return name
}
