//go:build linux

package state

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/flock"
)

// Lock is the right to change one machine, among all goroutines and processes of the host. The kernel ends it with the process.
type Lock struct {
	dir   *Dir
	uid   string
	file  *os.File
	fresh bool // made by Create, and nothing of it flushed yet
}

// UID returns the machine's uid.
func (l *Lock) UID() string { return l.uid }

// Create makes the directory of a new machine and locks it, before anybody can know of it. What the machine is given then, its name too, survives power loss once [Lock.WriteRecord] or
// [Lock.Stage] has returned: before, whatever of it is found is a machine that was not made.
func (d *Dir) Create(ctx context.Context, uid string) (*Lock, error) {
	if err := os.Mkdir(d.Machine(uid), 0o700); err != nil {
		return nil, err
	}
	l, err := d.Lock(ctx, uid)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(d.Machine(uid)))
	}
	l.fresh = true
	return l, nil
}

// Lock waits for the right to change the machine. microvm.ErrNotFound when there is none, or none any more.
func (d *Dir) Lock(ctx context.Context, uid string) (*Lock, error) {
	if err := d.mutexes.lock(ctx, uid); err != nil {
		return nil, err
	}
	file, err := flock.Lock(ctx, filepath.Join(d.Machine(uid), "lock"))
	if errors.Is(err, os.ErrNotExist) {
		err = fmt.Errorf("%s: %w", uid, microvm.ErrNotFound)
	}
	if err == nil {
		if err = d.stillFits(); err != nil {
			file.Close()
		}
	}
	if err != nil {
		d.mutexes.unlock(uid)
		return nil, err
	}
	return &Lock{dir: d, uid: uid, file: file}, nil
}

// Abandoned says whether a machine without a name belongs to nobody: whoever made or destroyed it was interrupted.
func (d *Dir) Abandoned(uid string) bool {
	const glance = 5 * time.Millisecond // a lock that is free is had at once
	looking, cancel := context.WithTimeout(context.Background(), glance)
	defer cancel()
	lock, err := d.Lock(looking, uid)
	if err != nil {
		return false
	}
	defer lock.Unlock()
	name, err := d.NameOf(uid)
	return err == nil && name == ""
}

// LockAll waits for the right to create machines under limits. It keeps nobody from changing those that are there.
func (d *Dir) LockAll(ctx context.Context) (unlock func(), err error) {
	file, err := flock.Lock(ctx, filepath.Join(d.root, "lock"))
	if err != nil {
		return nil, err
	}
	return func() { file.Close() }, nil
}

// Unlock gives the right back.
func (l *Lock) Unlock() {
	l.file.Close()
	l.dir.mutexes.unlock(l.uid)
}

// Remove removes all that is recorded of the machine. Unlock is still due. The directory is renamed first: whoever wants the lock makes its file anew, and a
// directory that others fill can't be removed.
func (l *Lock) Remove() error {
	if err := os.RemoveAll(l.dir.Volatile(l.uid)); err != nil {
		return err
	}
	gone := l.dir.Machine(removedPrefix + l.uid)
	if err := os.Rename(l.dir.Machine(l.uid), gone); err != nil {
		return ignoreMissing(err)
	}
	return os.RemoveAll(gone)
}

// removedPrefix begins the names of directories of machines that are gone.
const removedPrefix = ".removed-"

// mutexes are the locks among the goroutines of this process, one a uid while somebody wants it. They can be left when a context ends.
type mutexes struct {
	mu   sync.Mutex
	held map[string]*mutex
}

type mutex struct {
	token chan struct{} // holds one token while free
	users int
}

func newMutexes() *mutexes { return &mutexes{held: map[string]*mutex{}} }

func (m *mutexes) lock(ctx context.Context, uid string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	one := m.held[uid]
	if one == nil {
		one = &mutex{token: make(chan struct{}, 1)}
		one.token <- struct{}{}
		m.held[uid] = one
	}
	one.users++
	m.mu.Unlock()
	select {
	case <-one.token:
		return nil
	case <-ctx.Done():
		m.leave(uid, one)
		return fmt.Errorf("%w: %w", microvm.ErrBusy, ctx.Err())
	}
}

func (m *mutexes) unlock(uid string) {
	m.mu.Lock()
	one := m.held[uid]
	m.mu.Unlock()
	one.token <- struct{}{}
	m.leave(uid, one)
}

func (m *mutexes) leave(uid string, one *mutex) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if one.users--; one.users == 0 {
		delete(m.held, uid)
	}
}
