package image

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/tangle-network/microvm-runtime/internal/flatten"
)

// entryReader reads a tar and gives it again as the converter takes it: entries that are files, with nothing but what a file system keeps.
type entryReader struct {
	ctx   context.Context
	in    *tar.Reader
	out   *tar.Writer // into buf
	buf   bytes.Buffer
	quota *quota
	left  int64 // of the present file's content
	err   error // once buf is empty
}

func newEntryReader(ctx context.Context, r io.Reader, limits flatten.Limits) *entryReader {
	e := &entryReader{ctx: ctx, in: tar.NewReader(&contextReader{ctx, r}), quota: newQuota(limits)}
	e.out = tar.NewWriter(&e.buf)
	return e
}

func (e *entryReader) Read(p []byte) (int, error) {
	for e.buf.Len() == 0 {
		if e.err != nil {
			return 0, e.err
		}
		e.err = e.step()
	}
	return e.buf.Read(p)
}

// step puts the next piece into buf. It looks at the context itself: a hole is a piece without anything read.
func (e *entryReader) step() error {
	const most = 1 << 20
	if err := context.Cause(e.ctx); err != nil {
		return err
	}
	if e.left > 0 {
		n, err := io.CopyN(e.out, e.in, min(e.left, most))
		e.left -= n
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	header, err := e.in.Next()
	if err == io.EOF {
		if err := e.out.Close(); err != nil {
			return err
		}
		return io.EOF
	}
	if err != nil || header.Typeflag == tar.TypeXGlobalHeader { // which Git writes its commit into
		return err
	}
	entry, err := entryOf(header)
	if err != nil {
		return fmt.Errorf("%s: %w", abbreviate(header.Name), err)
	}
	if err := e.quota.take(entry); err != nil {
		return fmt.Errorf("%s: %w", abbreviate(header.Name), err)
	}
	e.left = entry.Size
	return e.out.WriteHeader(entry)
}

const xattrPrefix = "SCHILY.xattr."

// entryOf returns what is kept of an entry. Of its times that is only when it was changed: the same files are to make the same image.
func entryOf(h *tar.Header) (*tar.Header, error) {
	entry := &tar.Header{
		Typeflag: h.Typeflag, Name: h.Name, Linkname: h.Linkname, Mode: h.Mode & 0o7777, Uid: h.Uid, Gid: h.Gid, Devmajor: h.Devmajor, Devminor: h.Devminor,
		Format: tar.FormatPAX, PAXRecords: map[string]string{},
	}
	entry.ModTime = ext4Time(h.ModTime)
	entry.AccessTime, entry.ChangeTime = entry.ModTime, entry.ModTime
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		entry.Typeflag, entry.Size = tar.TypeReg, h.Size
	case tar.TypeLink, tar.TypeSymlink, tar.TypeChar, tar.TypeBlock, tar.TypeDir, tar.TypeFifo:
	default:
		return nil, fmt.Errorf("type %q of an entry is not known", h.Typeflag)
	}
	for key, value := range h.PAXRecords {
		name, ok := strings.CutPrefix(key, xattrPrefix)
		if !ok {
			continue
		}
		if name == "system.posix_acl_access" || name == "system.posix_acl_default" {
			list, err := diskACL(value)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			value = list
		}
		entry.PAXRecords[key] = value
	}
	return entry, nil
}
