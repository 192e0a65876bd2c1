package guest

import (
	"cmp"
	"context"
	"fmt"
	"io"

	"github.com/tangle-network/microvm-runtime/internal/tree"
	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// ReadTar returns a file or a directory of the guest as a tar, whose names begin with the path's last. "/." at the path's end leaves that out.
//
// Read returns io.EOF only when all has come; any other error is a *[CopyError]. The end of ctx ends it too. Close must be called. Nothing bounds the tar, and nothing in it is to be
// trusted: [CopyFrom] is what unpacks it safely.
func ReadTar(ctx context.Context, d Dialer, guestPath string) (io.ReadCloser, error) {
	const op = "read a tar"
	if err := checkGuestPath(guestPath); err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	guestPath = absolute(guestPath)
	_, name, contents, _ := tree.Source(guestPath)
	if contents {
		name = "."
	}
	r, err := receive(ctx, d, wire.FilesRead{Path: guestPath, Name: name})
	if err != nil {
		return nil, &CopyError{Op: op, Path: guestPath, Err: err}
	}
	return &told{download: r, op: op, path: guestPath}, nil
}

// told says how far a download came.
type told struct {
	*download
	op, path string
	bytes    int64
}

func (t *told) Read(p []byte) (int, error) {
	n, err := t.download.Read(p)
	t.bytes += int64(n)
	if err != nil && err != io.EOF {
		err = &CopyError{Op: t.op, Path: t.path, Bytes: t.bytes, Err: err}
	}
	return n, err
}

// WriteTar unpacks a tar, which must not be compressed, into a directory of the guest that is there. Nothing is written outside of it: names that lead out, also by links, are
// ErrUnsafe, and so are absolute ones. Directories that are there get what the tar says of them. Of the options Exact, MaxBytes and MaxFiles mean nothing.
//
// Errors are as CopyTo's; one of r's is passed on. When the agent ends early, WriteTar returns while a Read of r may still go on.
func WriteTar(ctx context.Context, d Dialer, guestDir string, r io.Reader, o *CopyOptions) error {
	const op = "write a tar"
	o = cmp.Or(o, &CopyOptions{})
	if err := checkGuestPath(guestDir); err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	request := wire.FilesWrite{Path: absolute(guestDir), Tar: true, Owners: o.Owners, Setuid: o.Setuid, Devices: o.Devices}
	result, err := send(ctx, d, &request, false, func(_ context.Context, w io.Writer) error {
		_, err := io.Copy(w, struct{ io.Reader }{r})
		return err
	})
	return copyError(op, guestDir, result, err)
}

// copyError makes an error of what an agent has said.
func copyError(op, path string, result *wire.CopiedResult, err error) error {
	if err == nil {
		return nil
	}
	failed := &CopyError{Op: op, Path: path, Err: err}
	if result != nil {
		failed.File, failed.Files, failed.Bytes = clean(result.File), result.Files, result.Bytes
	}
	return failed
}
