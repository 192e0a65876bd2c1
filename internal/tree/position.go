package tree

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// Position is how far one who unpacks has come: who packs goes on there. The zero value is the beginning.
type Position = wire.Position

// Records of the tar that are ours. A file that goes on at an offset has that much less in the tar; one in a tar without content has its size there.
const (
	offsetRecord = "MICROVM.offset"
	sizeRecord   = "MICROVM.size"
)

// before says whether a name comes before another in the order of Pack, or is it: directories before what is in them, each in the order of its names' bytes.
func before(name string, other wire.Name) bool {
	return other != "" && order(name) <= order(string(other))
}

// order makes a name one whose bytes are in that order.
func order(name string) string {
	if name == "." {
		return ""
	}
	return strings.ReplaceAll(name, "/", "\x00")
}

// key is the name of what is packed as it is told to others.
func (p *packer) key(as string) string {
	if as == p.o.Name {
		return "."
	}
	return strings.TrimPrefix(as, p.o.Name+"/")
}

// skip says whether the other side has a file already.
func (p *packer) skip(key string, dir bool) bool {
	return before(key, p.o.From.After) || !dir && before(key, p.o.Have)
}

// goOn makes a file's header that of the rest which the other side does not have.
func (p *packer) goOn(header *tar.Header, f *os.File, info fs.FileInfo, key string) error {
	from := p.o.From
	if string(from.File) != key || from.Offset <= 0 || from.Offset > info.Size() || from.Size != info.Size() || from.ModTime != info.ModTime().UnixNano() {
		return nil
	}
	if _, err := f.Seek(from.Offset, io.SeekStart); err != nil {
		return err
	}
	record(header, offsetRecord, from.Offset)
	header.Size -= from.Offset
	p.progress.Bytes += from.Offset
	return nil
}

func record(header *tar.Header, key string, value int64) {
	if header.PAXRecords == nil {
		header.PAXRecords = map[string]string{}
	}
	header.PAXRecords[key] = strconv.FormatInt(value, 10)
}

// recorded returns a number of ours; 0 where there is none.
func recorded(header *tar.Header, key string) (int64, error) {
	text, ok := header.PAXRecords[key]
	if !ok {
		return 0, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%w: record %s=%q", ErrUnsafe, key, short(text))
	}
	return n, nil
}

// errVanished is a file that was there in part and is not in the stream that goes on: nobody has it any more.
var errVanished = errors.New("it has vanished")

// cut says whether reading the tar has failed, so that another stream may go on.
func (u *unpacker) cut() bool { return u.raw.failed != nil && u.o.Again != nil }

// again goes on with another stream.
func (u *unpacker) again() error {
	at := u.part
	at.After = wire.Name(u.after)
	r, err := u.o.Again(at, u.raw.failed)
	if err != nil {
		return err
	}
	u.raw.r, u.raw.failed = ended{ctx: u.ctx, r: r}, nil
	u.tar = tar.NewReader(u.raw)
	return nil
}

// fill writes the content of a file, from as many streams as it takes. The header becomes the newest that was said of it.
func (u *unpacker) fill(f *os.File, header *tar.Header) error {
	defer func() { u.part = Position{} }()
	size, key := header.Size, u.key
	for n := int64(0); ; {
		moved, err := io.CopyBuffer(ended{ctx: u.ctx, w: f}, u.tar, u.block) // no byte of the tar is read for holes, however large
		n += moved
		u.progress.Bytes += moved
		if err == nil || !u.cut() {
			return err
		}
		u.part = Position{File: wire.Name(key), Offset: n, Size: size, ModTime: header.ModTime.UnixNano()}
		if err := u.again(); err != nil {
			return err
		}
		next, err := u.next()
		if err == io.EOF {
			return errVanished
		}
		if err != nil {
			return err
		}
		if u.key, err = u.keyOf(next); err != nil {
			return err
		}
		if u.key != key || next.Typeflag != tar.TypeReg {
			u.pending = next
			return errVanished
		}
		offset, err := recorded(next, offsetRecord)
		switch {
		case err != nil:
			return err
		case offset == 0: // it is another file by now, or nothing of it had come
			if err := rewind(f); err != nil {
				return err
			}
			u.progress.Bytes -= n
			n, size = 0, next.Size
		case offset != n || n+next.Size != size:
			return fmt.Errorf("%w: %d bytes from %d on, of %d, where %d have come", ErrUnsafe, next.Size, offset, size, n)
		}
		name := header.Name
		*header = *next
		header.Name = name
	}
}

func rewind(f *os.File) error {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return f.Truncate(0)
}
