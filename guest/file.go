package guest

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// MaxReadFile bounds what [ReadFile] returns, in bytes.
const MaxReadFile = 64 << 20

// FileInfo is what the guest says of a file.
type FileInfo struct {
	Name    string // The last part of its path.
	Size    int64  // Bytes.
	Mode    fs.FileMode
	ModTime time.Time
	UID     uint32
	GID     uint32
	Link    string // Where a symbolic link leads to; from [Lstat] only.
}

// Stat returns what is at a path of the guest, behind all symbolic links. ErrNotFound when nothing is.
func Stat(ctx context.Context, d Dialer, guestPath string) (FileInfo, error) {
	return stat(ctx, d, guestPath, true)
}

// Lstat is Stat, but of a symbolic link itself.
func Lstat(ctx context.Context, d Dialer, guestPath string) (FileInfo, error) {
	return stat(ctx, d, guestPath, false)
}

func stat(ctx context.Context, d Dialer, guestPath string, follow bool) (FileInfo, error) {
	if err := checkGuestPath(guestPath); err != nil {
		return FileInfo{}, fmt.Errorf("stat: %w", err)
	}
	if _, err := copies(ctx, d); err != nil {
		return FileInfo{}, fmt.Errorf("stat: %w", err)
	}
	f, err := askFor[wire.File](ctx, d, wire.PathFilesStat, wire.FilesStat{Path: absolute(guestPath), Follow: follow})
	if err != nil {
		return FileInfo{}, fmt.Errorf("stat: %w", err)
	}
	return FileInfo{Name: f.Name, Size: f.Size, Mode: fs.FileMode(f.Mode), ModTime: f.Time(), UID: f.UID, GID: f.GID, Link: f.Link}, nil
}

// ReadFile returns the content of a regular file of the guest, behind all symbolic links; also of one whose size is told as 0, as those of /proc are. ErrTooMuch when it has more than
// [MaxReadFile] bytes: use CopyFrom.
func ReadFile(ctx context.Context, d Dialer, guestPath string) ([]byte, error) {
	const op = "read the guest's file"
	if err := checkGuestPath(guestPath); err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	guestPath = absolute(guestPath)
	text, err := persist(ctx, reconnectPatience, func() ([]byte, error) { return readFile(ctx, d, guestPath) })
	if err != nil {
		return nil, &CopyError{Op: op, Path: guestPath, Bytes: int64(len(text)), Err: err}
	}
	return text, nil
}

// readFile returns what has come also with an error.
func readFile(ctx context.Context, d Dialer, guestPath string) ([]byte, error) {
	r, err := receive(ctx, d, wire.FilesRead{Path: guestPath, Raw: true})
	if err != nil {
		return nil, err
	}
	defer r.Close()
	text, err := io.ReadAll(io.LimitReader(r, MaxReadFile+1))
	if err == nil && len(text) > MaxReadFile {
		err = fmt.Errorf("%w: a file of more than %d bytes", ErrTooMuch, MaxReadFile)
	}
	return text, err
}

// WriteFile makes a file of root's in the guest, with exactly that mode, in a directory that is there. What is at the path is replaced as a whole: nobody sees a part, and a symbolic link
// there is not followed.
func WriteFile(ctx context.Context, d Dialer, guestPath string, content []byte, mode fs.FileMode) error {
	const op = "write the guest's file"
	if err := checkGuestPath(guestPath); err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	guestPath = absolute(guestPath)
	request := wire.FilesWrite{Path: guestPath, Exact: true, Setuid: true}
	var result *wire.CopiedResult
	_, err := persist(ctx, reconnectPatience, func() (struct{}, error) { // all of it again: nobody sees a difference
		var err error
		result, err = send(ctx, d, &request, true, func(_ context.Context, w io.Writer) error {
			return writeOne(w, path.Base(guestPath), content, mode)
		})
		return struct{}{}, err
	})
	return copyError(op, guestPath, result, err)
}

// writeOne writes a tar with one file.
func writeOne(w io.Writer, name string, content []byte, mode fs.FileMode) error {
	t := tar.NewWriter(w)
	header := &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(content)), Mode: int64(mode.Perm()), ModTime: time.Now(), Format: tar.FormatPAX}
	for bit, number := range map[fs.FileMode]int64{fs.ModeSetuid: 0o4000, fs.ModeSetgid: 0o2000, fs.ModeSticky: 0o1000} {
		if mode&bit != 0 {
			header.Mode |= number
		}
	}
	if err := t.WriteHeader(header); err != nil {
		return err
	}
	_, err := io.Copy(t, bytes.NewReader(content))
	return errors.Join(err, t.Close())
}
