//go:build linux

package loan

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/flock"
	"github.com/tangle-network/microvm-runtime/internal/tidy"
)

// Borrower is whom things are lent to.
type Borrower struct {
	ID       string // Of a machine.
	UID, GID int    // Of its VMM. A UID of 0 is this process itself, and files stay whose they are.
}

// HeldError says that somebody else has a thing. It matches microvm.ErrBusy.
type HeldError struct {
	Path   string
	Holder string // The Borrower's ID.
}

func (e *HeldError) Error() string { return fmt.Sprintf("%s is lent to %s", e.Path, e.Holder) }

// Is makes errors.Is(err, microvm.ErrBusy) true.
func (e *HeldError) Is(target error) bool { return target == microvm.ErrBusy }

// Book is the loans of one state directory. Any number of processes may use it at once.
type Book struct {
	dir    string
	device uint64            // of the file system that it is on
	lives  func(string) bool // says whether a borrower is still there
}

// loan is one loan, as it is on disk.
type loan struct {
	Holder string     `json:"holder"`
	Path   string     `json:"path"`
	Key    string     `json:"key"`
	Was    possession `json:"was"`     // Before it was lent.
	LentTo int        `json:"lent_to"` // The user whose the file is meanwhile. 0 when it stays whose it was.
}

// Tree says what is ours in the directory of a book whose loans have ended.
func Tree(dir string) tidy.Tree {
	files := func(_ string, entry fs.DirEntry) bool {
		return slices.Contains([]string{"lock", "new"}, entry.Name())
	}
	return tidy.Tree{Dir: dir, Ours: files, Below: []tidy.Tree{{Dir: "out"}}}
}

// OpenBook makes the book's directories where they are missing. Lives says whether a borrower is still there.
func OpenBook(dir string, lives func(id string) bool) (*Book, error) {
	for _, sub := range []string{"", "out"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil && !errors.Is(err, os.ErrExist) {
			return nil, err
		}
	}
	info, err := os.Stat(dir)
	if err != nil {
		return nil, err
	}
	if f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_WRONLY|os.O_CREATE|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o600); err == nil { // else whoever locks it finds out
		f.Close()
	}
	return &Book{dir: dir, device: info.Sys().(*syscall.Stat_t).Dev, lives: lives}, nil
}

// Take lends a thing. One that the borrower has already is lent to it again: the file is made its user's anew. A *[HeldError] when somebody else has it.
func (b *Book) Take(to Borrower, t *Thing) error {
	unlock, err := b.lock()
	if err != nil {
		return err
	}
	defer unlock()
	l := loan{Holder: to.ID, Path: t.Path, Key: b.key(t), Was: t.possession(), LentTo: to.UID}
	old, err := b.read(l.Key)
	switch {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		return err
	case old.Holder != to.ID && b.lives(old.Holder):
		return &HeldError{t.Path, old.Holder}
	default:
		l.Was = old.Was
	}
	if t.Block {
		l.LentTo = 0 // the VMM gets a node of its own
	}
	if l != old {
		if err := b.write(l); err != nil {
			return err
		}
	}
	if l.LentTo == 0 {
		return nil
	}
	return t.give(possession{UID: to.UID, GID: to.GID, Mode: 0o600})
}

// Holds says whether the borrower has the thing: nil, or why not. What is at a thing's path may have become another.
func (b *Book) Holds(id string, t *Thing) error {
	l, err := b.read(b.key(t))
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w: %s is not what it was when it was lent", microvm.ErrState, t.Path)
	}
	if err == nil && l.Holder != id {
		return &HeldError{t.Path, l.Holder}
	}
	return err
}

// Return ends all loans of a borrower, whose VMM must be gone: each file gets its owner, group and mode back. What is not there any more, or is not what was lent, is left as
// it is and told as a remark.
func (b *Book) Return(id string) (remarks []string, err error) {
	return b.end(func(l *loan) bool { return l.Holder == id })
}

// Sweep is Return for all borrowers that are gone.
func (b *Book) Sweep() (remarks []string, err error) {
	return b.end(func(l *loan) bool { return !b.lives(l.Holder) })
}

func (b *Book) end(which func(*loan) bool) (remarks []string, err error) {
	unlock, err := b.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	entries, err := os.ReadDir(filepath.Join(b.dir, "out"))
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, entry := range entries {
		l, err := b.read(entry.Name())
		if err != nil {
			remarks = append(remarks, err.Error())
			continue
		}
		if !which(&l) {
			continue
		}
		remark, err := b.restore(&l)
		if remark != "" {
			remarks = append(remarks, remark)
		}
		if err == nil {
			err = os.Remove(b.path(l.Key))
		}
		errs = append(errs, err)
	}
	return remarks, errors.Join(errs...)
}

// restore gives a file back.
func (b *Book) restore(l *loan) (remark string, err error) {
	if l.LentTo == 0 {
		return "", nil
	}
	t, err := Open(l.Path)
	if errors.Is(err, microvm.ErrInvalid) {
		return fmt.Sprintf("%v; its owner, %d, is not set again", err, l.Was.UID), nil
	}
	if err != nil {
		return "", err
	}
	defer t.Close()
	switch owner := int(t.stat.Uid); {
	case b.key(t) != l.Key:
		return fmt.Sprintf("%s is not what was lent any more, and is left as it is", l.Path), nil
	case owner != l.LentTo && owner != l.Was.UID:
		return fmt.Sprintf("%s belongs to user %d meanwhile, and is left as it is", l.Path, owner), nil
	}
	return "", t.give(l.Was)
}

// key tells a thing from all others.
func (b *Book) key(t *Thing) string {
	switch {
	case t.Block:
		return "block-" + strconv.FormatUint(t.stat.Rdev, 16)
	case t.stat.Dev == b.device:
		return "here-" + strconv.FormatUint(t.stat.Ino, 10)
	}
	return strconv.FormatUint(t.stat.Dev, 16) + "-" + strconv.FormatUint(t.stat.Ino, 10)
}

func (b *Book) path(key string) string { return filepath.Join(b.dir, "out", key) }

func (b *Book) read(key string) (l loan, err error) {
	text, err := os.ReadFile(b.path(key))
	if err != nil {
		return l, err
	}
	if err := json.Unmarshal(text, &l); err != nil {
		return l, fmt.Errorf("%w: loan %s: %w (who has it is not known; remove the file when nobody does)", microvm.ErrBusy, b.path(key), err)
	}
	return l, nil
}

// write records a loan; when it returns it survives power loss.
func (b *Book) write(l loan) error {
	text, err := json.Marshal(l)
	if err != nil {
		return err
	}
	temp := filepath.Join(b.dir, "new")
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(text, '\n'))
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(temp, b.path(l.Key))
	}
	if err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	out, err := os.Open(filepath.Join(b.dir, "out"))
	if err != nil {
		return err
	}
	return errors.Join(out.Sync(), out.Close())
}

// lockPatience is how long another process may hold the book. It does so for a few writes.
const lockPatience = 10 * time.Second

// lock is held for as long as a few small files take.
func (b *Book) lock() (unlock func(), err error) {
	ctx, cancel := context.WithTimeout(context.Background(), lockPatience)
	defer cancel()
	f, err := flock.Lock(ctx, filepath.Join(b.dir, "lock"))
	if err != nil {
		return nil, err
	}
	return func() { f.Close() }, nil
}
