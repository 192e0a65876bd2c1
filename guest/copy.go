package guest

import (
	"cmp"
	"context"
	"fmt"
	"path"
	"path/filepath"
	"strings"
	"unicode/utf8"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/tree"
	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// CopyOptions are the options of [CopyTo], [CopyFrom] and [WriteTar]. A nil pointer is the zero value.
type CopyOptions struct {
	// Exact makes the destination the copy's name also where a directory is there: the two are merged. So a copy can be repeated, which an ended one should be.
	Exact bool
	// Resume goes on with a copy that ended early, of which a [CopyError] told: files and links at the destination that are as the source's, by size and time of the last change, are not copied
	// again, up to the first that is not. Set Exact too where the first copy made the destination, as it is there now. One file alone is copied again. ErrUnsupported when the agent is
	// too old.
	Resume bool
	// Owners keeps owners and groups by their numbers. Without it all belongs to root in the guest, and to this process's user on the host.
	Owners bool
	// Setuid keeps set-user-ID and set-group-ID bits, and capabilities.
	Setuid bool
	// Devices copies devices and named pipes. Without it they are an error; sockets are always left out.
	Devices bool
	// MaxBytes bounds what CopyFrom takes from the guest, in bytes of content and of what describes it. Optional: 64 GiB.
	MaxBytes int64
	// MaxFiles bounds how many files and directories CopyFrom takes. Optional: 1,000,000.
	MaxFiles int64
}

const (
	defaultMaxBytes = 64 << 30
	defaultMaxFiles = 1_000_000
)

// Errors of copies; test with errors.Is. A full disk, of either side, is syscall.ENOSPC.
var (
	// ErrUnsafe is returned when a copy is not taken as it is: it would be outside of its target, or has devices that nobody asked for.
	ErrUnsafe = tree.ErrUnsafe
	// ErrTooMuch is returned when the guest sends more than MaxBytes or MaxFiles.
	ErrTooMuch = tree.ErrTooMuch
	// ErrBroken is returned when the connection broke and could not be made again: what was copied until then stays, and CopyOptions.Resume goes on.
	ErrBroken = errBroken
)

// CopyError says how far a copy came that did not come to its end.
type CopyError struct {
	Op    string // Such as "copy to the guest".
	Path  string // The destination's or source's path in the guest.
	File  string // What was copied at the end, relative to what is copied. It is one of a guest's texts where the guest has named it.
	Files int64  // How many files and directories were complete. When ErrBroken ended a copy to the guest, the last of them may not have come.
	Bytes int64  // Of their content.
	Err   error
}

// Error returns `copy to the guest "/path": "file": cause (3 files, 17 bytes)`.
func (e *CopyError) Error() string {
	file := ""
	if e.File != "" && e.File != "." {
		file = fmt.Sprintf(" %.200q:", e.File)
	}
	return fmt.Sprintf("%s %.200q:%s %v (after %d files, %d bytes)", e.Op, e.Path, file, e.Err, e.Files, e.Bytes)
}

// Unwrap returns the cause.
func (e *CopyError) Unwrap() error { return e.Err }

// CopyTo copies a file or a directory of the host into the guest, with modes, times, symbolic and hard links and users' extended attributes.
//
// Destinations are as those of cp -a and docker cp. Where guestPath is a directory the copy is made in it, under the source's name; where hostPath ends with "/." it is the
// directory's content that is put there. Where nothing is, guestPath is the copy's name; its parent must be there. A file takes the place of a file. A directory is merged
// with one of that name. A symbolic link is copied as it is: with "/" at its end it is what it leads to.
//
// A connection that breaks, as all do when the machine is snapshotted, is made again for 30 seconds, and the copy goes on where the guest has come to, within a file too; what changed in the source meanwhile behind that
// is not looked at again. An agent that is too old for it makes that [ErrBroken].
//
// Any error that is not about the arguments is a *[CopyError]. ErrNotFound, ErrDenied and syscall.ENOSPC are the guest's, errors of package io/fs the host's. A copy that ended
// so left whole files, and no part of one.
func CopyTo(ctx context.Context, d Dialer, hostPath, guestPath string, o *CopyOptions) error {
	const op = "copy to the guest"
	o = cmp.Or(o, &CopyOptions{})
	if err := checkPaths(hostPath, guestPath); err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	at, name, contents, follow := tree.Source(hostPath)
	request := wire.FilesWrite{
		Path: absolute(guestPath), Name: filepath.ToSlash(name), Contents: contents, Exact: o.Exact, Owners: o.Owners, Setuid: o.Setuid, Devices: o.Devices,
	}
	c := &uploading{dialer: d, request: &request, at: at, pack: tree.PackOptions{Name: ".", Follow: follow, Devices: o.Devices}}
	result, err := c.run(ctx, o.Resume)
	if err != nil && result == nil {
		return &CopyError{Op: op, Path: guestPath, File: c.progress.File, Files: c.progress.Files, Bytes: c.progress.Bytes, Err: err}
	}
	return copyError(op, guestPath, result, err)
}

// CopyFrom copies a file or a directory of the guest to the host. Destinations, errors, and what becomes of a connection that breaks are as CopyTo's.
//
// Nothing is written outside of the destination, whatever the guest says and whatever happens there meanwhile. Symbolic links come as they are: one may lead to where the guest likes,
// so follow none without a look.
func CopyFrom(ctx context.Context, d Dialer, guestPath, hostPath string, o *CopyOptions) error {
	const op = "copy from the guest"
	o = cmp.Or(o, &CopyOptions{})
	if err := checkPaths(hostPath, guestPath); err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	if o.MaxBytes < 0 || o.MaxFiles < 0 {
		return fmt.Errorf("%s: %w: CopyOptions.MaxBytes and MaxFiles must not be negative", op, microvm.ErrInvalid)
	}
	guestPath = absolute(guestPath)
	_, name, contents, _ := tree.Source(guestPath)
	c := &downloading{dialer: d, request: wire.FilesRead{Path: guestPath, Name: ".", Devices: o.Devices}}
	progress, err := c.run(ctx, hostPath, o.Resume, tree.PutOptions{
		Name: name, Contents: contents, Exact: o.Exact, Owners: o.Owners, Setuid: o.Setuid, Devices: o.Devices,
		MaxBytes: cmp.Or(o.MaxBytes, defaultMaxBytes), MaxFiles: cmp.Or(o.MaxFiles, defaultMaxFiles),
	})
	if err != nil {
		return &CopyError{Op: op, Path: guestPath, File: progress.File, Files: progress.Files, Bytes: progress.Bytes, Err: ended(ctx, err)}
	}
	return nil
}

// absolute makes a path of the guest one from its root on, with what its end says.
func absolute(at string) string {
	clean := path.Join("/", at)
	if at == "." || strings.HasSuffix(at, "/.") {
		return strings.TrimSuffix(clean, "/") + "/."
	}
	if strings.HasSuffix(at, "/") && clean != "/" {
		return clean + "/"
	}
	return clean
}

// checkPaths refuses what no side can be asked for.
func checkPaths(hostPath, guestPath string) error {
	if hostPath == "" || strings.ContainsRune(hostPath, 0) {
		return &microvm.FieldError{Field: "hostPath", Value: hostPath, Reason: "must be a path"}
	}
	return checkGuestPath(guestPath)
}

func checkGuestPath(at string) error {
	if at == "" || strings.ContainsRune(at, 0) || !utf8.ValidString(at) || len(at) >= wire.MaxPath {
		return &microvm.FieldError{Field: "guestPath", Value: at, Reason: "must be a path in UTF-8, of less than 4096 bytes"}
	}
	return nil
}
