//go:build linux

// Package netns keeps network namespaces as files, and runs functions in them.
//
// There is only one type: a [Namespace] is an open handle. [Make] makes a namespace that lives at a path, [Open] adopts one, [Remove] ends it, [List] says which a directory
// has; [New] makes one that lives no longer than its handles and what is in it, and [Current] is the one that the caller is in.
//
// A namespace at a path is an empty file with the kernel's handle mounted on it. It lives until it is removed, the host is booted, or the mount namespace that it
// was made in ends, and besides as long as a process, a socket or a handle is in it.
//
// # Caveats
//
// Only processes of one mount namespace, and of those that its mounts propagate to, see a namespace at its path: to others the file is empty, and Open answers that there is
// none. A service of systemd with an option that gives it mounts of its own (PrivateTmp, ProtectSystem, PrivateMounts, …) makes namespaces that neither another process nor
// its own next start finds: it must not have such options, or bind the directory in from the host with shared propagation.
//
// The directory needs no mount of its own. Mounts that propagate into other mount namespaces go there too when they go here; where a private copy was made, removing the file
// takes the mount off it (Linux 3.18).
//
// A function that Do runs must not start goroutines that it expects to be in the namespace, nor end its own goroutine. A socket stays in the namespace that it was
// made in, whichever thread uses it.
package netns

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/flock"
	"github.com/tangle-network/microvm-runtime/internal/unix"
)

// thread is the namespace that the calling thread is in.
const thread = "/proc/thread-self/ns/net"

// patience is how long Make waits for another that makes the same namespace, which is the work of a moment.
const patience = 10 * time.Second

// Namespace is an open handle of a network namespace, which keeps it alive. Its methods may be called at the same time, but for Close.
type Namespace struct {
	file *os.File
	path string
}

// Make makes a network namespace that is found at path afterwards, whose directory must exist. fs.ErrExist when there is one. A file without a namespace, which a process
// that was killed leaves, is used.
func Make(path string) (*Namespace, error) {
	if here, err := mounted(path); here || err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, &os.PathError{Op: "make network namespace", Path: path, Err: orElse(err, fs.ErrExist)}
	}
	var ns *Namespace
	err := onThread(func() (err error) {
		if ns, err = create(); err != nil {
			return err
		}
		ns.path = path
		return publish(path)
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make network namespace %s: %w", path, err), ns.Close())
	}
	return ns, nil
}

func orElse(err, other error) error {
	if err != nil {
		return err
	}
	return other
}

// publish mounts the calling thread's namespace on the file at path, which it makes when it is missing.
func publish(path string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	lock, err := flock.Lock(ctx, path)
	here, failed := mounted(path) // another may have been faster, and what is mounted can't be locked
	if here {
		lock.Close()
		return fs.ErrExist
	}
	if err != nil {
		return err
	}
	defer lock.Close()
	if failed != nil && !errors.Is(failed, fs.ErrNotExist) {
		return failed
	}
	return unix.BindMount(thread, path)
}

// New makes a network namespace that has no path: it ends with its handles, and what is in it.
func New() (*Namespace, error) {
	var ns *Namespace
	err := onThread(func() (err error) {
		ns, err = create()
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("make network namespace: %w", err)
	}
	return ns, nil
}

// create moves the calling thread into a new namespace and returns a handle.
func create() (*Namespace, error) {
	if err := unix.NewNetworkNamespace(); err != nil {
		return nil, err
	}
	return Current()
}

// Current returns a handle of the namespace that the caller is in, whose path is empty.
func Current() (*Namespace, error) {
	file, err := os.Open(thread)
	if err != nil {
		return nil, err
	}
	return &Namespace{file: file}, nil
}

// Open returns a handle of the namespace at path. fs.ErrNotExist when there is none, also when there is a file without one.
func Open(path string) (*Namespace, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	is, err := unix.IsNetworkNamespace(int(file.Fd()))
	if err == nil && !is {
		err = fs.ErrNotExist
	}
	if err != nil {
		return nil, errors.Join(&os.PathError{Op: "open network namespace", Path: path, Err: err}, file.Close())
	}
	return &Namespace{file: file, path: path}, nil
}

// mounted says whether a network namespace is at path. An error other than fs.ErrNotExist says that something else is.
func mounted(path string) (bool, error) {
	ns, err := Open(path)
	if err == nil {
		return true, ns.Close()
	}
	info, err := os.Lstat(path)
	if err == nil && !info.Mode().IsRegular() {
		err = &os.PathError{Op: "open network namespace", Path: path, Err: errors.New("it is no regular file")}
	}
	return false, err
}

// Remove takes the namespace from its path and removes the file; nil when there is none. The namespace itself lives on while something is in it or has a handle of it.
func Remove(path string) error {
	for { // mounts that somebody has put on top of each other
		here, err := mounted(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if !here {
			break
		}
		if err := unix.Unmount(path); err != nil && !errors.Is(err, syscall.EINVAL) { // another may have been faster
			return err
		}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// List returns the names of the files of a directory that have a namespace, in order; none when there is no directory.
func List(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var names []string
	for _, entry := range entries {
		if here, _ := mounted(filepath.Join(dir, entry.Name())); here {
			names = append(names, entry.Name())
		}
	}
	return names, nil
}

// Do runs f on a thread that is in the namespace, and returns its error. All that f opens, and each process that it starts, is in the namespace. Of nil it is the namespace that
// this process is in, also when it is called by a function that runs in another.
func (n *Namespace) Do(f func() error) error {
	if n == nil {
		return onThread(f)
	}
	return onThread(func() error {
		if err := n.enter(); err != nil {
			return err
		}
		return f()
	})
}

// enter moves the calling thread into the namespace.
func (n *Namespace) enter() error {
	if err := unix.EnterNetworkNamespace(n.FD()); err != nil {
		return fmt.Errorf("enter network namespace %s: %w", n.path, err)
	}
	return nil
}

// onThread runs f on a thread that nobody else uses, and lets the thread go back to where it came from.
func onThread(f func() error) error {
	return from(Current, f)
}

// from is onThread with the way to find what is gone back to. A thread that can't go back ends with its goroutine.
func from(home func() (*Namespace, error), f func() error) error {
	done := make(chan error, 1)
	go func() {
		err := errors.New("the function ended its goroutine")
		defer func() { done <- err }()
		runtime.LockOSThread()
		if syscall.Gettid() == os.Getpid() { // the main thread can't end, and /proc tells by it where the process is
			err = from(home, f)
			runtime.UnlockOSThread()
			return
		}
		origin, failed := home()
		if failed != nil {
			err = failed
			runtime.UnlockOSThread()
			return
		}
		defer origin.Close()
		defer func() {
			if unix.EnterNetworkNamespace(origin.FD()) == nil {
				runtime.UnlockOSThread()
			}
		}()
		err = f()
	}()
	return <-done
}

// FD returns the handle's descriptor, which is valid until Close.
func (n *Namespace) FD() int { return int(n.file.Fd()) }

// Path returns where the namespace was made or opened, or nothing.
func (n *Namespace) Path() string { return n.path }

// Is says whether both are handles of one namespace.
func (n *Namespace) Is(other *Namespace) bool {
	a, err := n.file.Stat()
	if err != nil {
		return false
	}
	b, err := other.file.Stat()
	return err == nil && os.SameFile(a, b)
}

// Close gives the handle back. It may be called again, and of none.
func (n *Namespace) Close() error {
	if n == nil {
		return nil
	}
	if err := n.file.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}
