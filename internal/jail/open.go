//go:build linux

package jail

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"github.com/tangle-network/microvm-runtime/internal/unix"
)

// ErrHostile is returned for what is not what a well-behaved VMM would have left there.
var ErrHostile = errors.New("not what the VMM should have left")

// openDir opens a directory that a VMM may have filled; the directory's own path is ours.
func openDir(dir string) (*os.File, error) {
	return os.OpenFile(dir, unix.O_PATH|syscall.O_DIRECTORY|syscall.O_NOFOLLOW|syscall.O_CLOEXEC, 0)
}

// OpenFile opens a regular file below dir for reading, which must belong to uid and have one name only.
func OpenFile(dir, name string, uid int) (*os.File, error) {
	d, err := openDir(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	f, err := unix.OpenBeneath(d, name, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if errors.Is(err, syscall.ELOOP) || errors.Is(err, syscall.EXDEV) {
		return nil, fmt.Errorf("%w: %w", ErrHostile, err)
	}
	if err != nil {
		return nil, err
	}
	if err := check(f, syscall.S_IFREG, uid); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func check(f *os.File, kind uint32, uid int) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	stat := info.Sys().(*syscall.Stat_t)
	if stat.Mode&syscall.S_IFMT != kind || int(stat.Uid) != uid || kind == syscall.S_IFREG && stat.Nlink != 1 {
		return fmt.Errorf("%w: %s has mode %o, user %d, %d links", ErrHostile, f.Name(), stat.Mode, stat.Uid, stat.Nlink)
	}
	return nil
}

// socket opens a socket below dir as a name for it that can't be exchanged any more.
func socket(dir, name string, uid int) (*os.File, error) {
	d, err := openDir(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	f, err := unix.OpenBeneath(d, name, unix.O_PATH|syscall.O_NOFOLLOW, 0)
	if errors.Is(err, syscall.ELOOP) || errors.Is(err, syscall.EXDEV) {
		return nil, fmt.Errorf("%w: %w", ErrHostile, err)
	}
	if err != nil {
		return nil, err
	}
	if err := check(f, syscall.S_IFSOCK, uid); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Dial connects to the socket of that name below dir, which must belong to uid. The path may have any length.
func Dial(ctx context.Context, dir, name string, uid int) (net.Conn, error) {
	f, err := socket(dir, name, uid)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	conn, err := new(net.Dialer).DialContext(ctx, "unix", proc(f))
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", f.Name(), err)
	}
	return conn, nil
}

// Listen makes a socket of that name below dir, which uid may connect to. Closing the listener leaves the name to whoever removes dir.
func Listen(dir, name string, uid, gid int) (net.Listener, error) {
	d, err := openDir(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	listener, err := net.Listen("unix", filepath.Join(proc(d), name))
	if err != nil {
		return nil, fmt.Errorf("listen at %s/%s: %w", dir, name, errors.Unwrap(err))
	}
	listener.(*net.UnixListener).SetUnlinkOnClose(false)
	f, err := socket(dir, name, os.Geteuid())
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	defer f.Close()
	if err := os.Chown(proc(f), uid, gid); err != nil { // through the descriptor: the name may be another's by now
		return nil, errors.Join(err, listener.Close())
	}
	return listener, nil
}

// Take makes a regular file below dir, which must belong to uid and have one name only, a name at path on the same file system, which is this process's user's and which nobody can write to. The
// name below dir goes. A VMM that still has the file open for writing is ErrHostile.
func Take(dir, name string, uid int, path string) error {
	f, err := OpenFile(dir, name, uid)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := errors.Join(f.Chown(os.Geteuid(), os.Getegid()), f.Chmod(0o444)); err != nil {
		return err
	}
	if err := unix.NobodyWrites(f); err != nil { // from here on nobody can open it for that: only who has it open already could
		return fmt.Errorf("%w: %s: %w", ErrHostile, f.Name(), err)
	}
	if err := check(f, syscall.S_IFREG, os.Geteuid()); err != nil { // a link that was made meanwhile
		return err
	}
	if err := unix.LinkFile(f, path); err != nil {
		return err
	}
	return Discard(dir, name)
}

// Discard removes a name below dir, if it is there. It follows no link.
func Discard(dir, name string) error {
	d, err := openDir(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := os.Remove(filepath.Join(proc(d), name)); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// proc returns a path that leads to what f is, whatever happens to its name.
func proc(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }
