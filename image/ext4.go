package image

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/Microsoft/hcsshim/ext4/tar2ext4"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/flatten"
)

// fromTree makes a base at path of a tree; see [FromTar].
func fromTree(ctx context.Context, tree *flatten.Tree, path string, progress func(n int64)) (Base, error) {
	temp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return Base{}, fmt.Errorf("image: %w", err)
	}
	defer os.Remove(temp.Name())
	defer temp.Close()
	r, w := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.CloseWithError(writeTree(ctx, w, tree, progress))
	}()
	out := &holes{f: temp}
	err = tar2ext4.ConvertTarToExt4(r, out, tar2ext4.MaximumDiskSize(maxDisk))
	r.CloseWithError(errConverted)
	<-done
	if err == nil {
		err = out.finish()
	}
	if err == nil {
		err = fillBitmaps(temp)
	}
	if err != nil {
		return Base{}, fmt.Errorf("image %s: %w", path, err)
	}
	return finish(temp, path)
}

// errConverted ends a writer whose reader has left.
var errConverted = fmt.Errorf("the ext4 writer has ended")

// writeTree writes a tree as a tar that the ext4 writer makes the tree of again.
func writeTree(ctx context.Context, w io.Writer, tree *flatten.Tree, progress func(n int64)) error {
	t := tar.NewWriter(w)
	buffer := make([]byte, 256<<10)
	err := tree.Walk(ctx, func(h *tar.Header, content io.Reader) error {
		entry, err := forExt4(h)
		if err != nil {
			return fmt.Errorf("%q: %w", abbreviate(h.Name), err)
		}
		if err := t.WriteHeader(entry); err != nil {
			return fmt.Errorf("%w: %w", ErrMalformed, err)
		}
		if content == nil {
			return nil
		}
		_, err = io.CopyBuffer(t, content, buffer)
		return err
	}, progress)
	if err != nil {
		return err
	}
	return t.Close()
}

// forExt4 returns a header of which the ext4 writer makes what h says. It changes h.
func forExt4(h *tar.Header) (*tar.Header, error) {
	if h.Name == "lost+found" && h.Typeflag != tar.TypeDir {
		return nil, fmt.Errorf("%w: ext4 has a directory of this name", microvm.ErrUnsupported)
	}
	if err := ext4Attributes(h); err != nil {
		return nil, err
	}
	entry, err := entryOf(h)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return entry, nil
}

// ext4Time returns the time whose seconds, as the ext4 writer puts them down, are t. It writes 34 bits as they are; ext4 has a signed half of 32 bits and counts its overflows in
// the other two, so that times before 1970, and many after 2038, would become others.
func ext4Time(t time.Time) time.Time {
	const first, last = -1 << 31, 0x2_7fff_ffff // 1901, and 2310: from there on the writer has one time for all
	seconds := min(max(t.Unix(), first), last)
	low := int64(int32(seconds))
	overflows := (seconds - low) >> 32
	return time.Unix(overflows<<32|int64(uint32(low)), int64(t.Nanosecond()))
}

const (
	accessACL  = "system.posix_acl_access"
	defaultACL = "system.posix_acl_default"

	maxXattrs = 12 // In a block: the ext4 writer sorts more wrongly, and the kernel would not find them.
)

// ext4Attributes keeps what ext4 can have: a kernel would not give others back. They go into the inode while they fit, in the order of their names, and then into one block.
func ext4Attributes(h *tar.Header) error {
	inode, block, blocks := 256-152-8, blockSize-32-4, 0
	for _, key := range slices.Sorted(maps.Keys(h.PAXRecords)) {
		name := strings.TrimPrefix(key, xattrPrefix)
		if !attributeAllowed(name, h.Typeflag) {
			delete(h.PAXRecords, key)
			continue
		}
		stored := name // without its namespace, which has a number
		if name == accessACL || name == defaultACL {
			stored = ""
		} else if _, rest, ok := strings.Cut(name, "."); ok {
			stored = rest
		}
		size := 16 + (len(stored)+3)&^3 + (len(h.PAXRecords[key])+3)&^3
		switch {
		case size <= inode:
			inode -= size
		case size <= block && blocks < maxXattrs:
			block, blocks = block-size, blocks+1
		default:
			return fmt.Errorf("%w: extended attribute %s is too much: ext4 has room for %d in about 4 KiB", microvm.ErrUnsupported, abbreviate(name), maxXattrs)
		}
	}
	return nil
}

// attributeAllowed says what Linux lets a file of a type have. A label of SELinux is the host's that the layer was made on.
func attributeAllowed(name string, kind byte) bool {
	namespace, rest, ok := strings.Cut(name, ".")
	switch {
	case !ok || rest == "" || len(name) > 255 || strings.ContainsAny(name, "=\x00"):
		return false
	case namespace == "user":
		return kind == tar.TypeReg || kind == tar.TypeDir
	case name == accessACL:
		return kind != tar.TypeSymlink
	case name == defaultACL:
		return kind == tar.TypeDir
	}
	return namespace == "trusted" || namespace == "security" && rest != "selinux"
}

// holes is a new file in which blocks of zeros are holes.
type holes struct {
	f        *os.File
	at, size int64
	written  int64 // The end of what is no hole. Before it, zeros are written too.
}

var zeros [blockSize]byte

func (h *holes) Write(p []byte) (n int, err error) {
	for len(p) > 0 {
		hole := h.run(p, true)
		h.at += int64(hole)
		n, p = n+hole, p[hole:]
		data := h.run(p, false)
		if data > 0 {
			if _, err := h.f.WriteAt(p[:data], h.at); err != nil {
				return n, err
			}
		}
		h.at += int64(data)
		n, p = n+data, p[data:]
		if data > 0 {
			h.written = max(h.written, h.at)
		}
		h.size = max(h.size, h.at)
	}
	return n, nil
}

// run returns how much of p is to be left a hole, or how much is not.
func (h *holes) run(p []byte, hole bool) int {
	n := 0
	for n < len(p) {
		at := h.at + int64(n)
		next := min(len(p)-n, int(blockSize-at%blockSize))
		if (at >= h.written && bytes.Equal(p[n:n+next], zeros[:next])) != hole {
			break
		}
		n += next
	}
	return n
}

func (h *holes) Read(p []byte) (int, error) {
	n, err := h.f.ReadAt(p, h.at)
	h.at += int64(n)
	return n, err
}

func (h *holes) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += h.at
	case io.SeekEnd:
		offset += h.size
	}
	if offset < 0 {
		return 0, os.ErrInvalid
	}
	h.at, h.size = offset, max(h.size, offset)
	return offset, nil
}

// finish gives the file its size, of which a hole may be the end.
func (h *holes) finish() error { return h.f.Truncate(h.size) }
