//go:build linux

package state

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/disk"
	"github.com/tangle-network/microvm-runtime/internal/unix"
)

const uidLength = 12

// NewUID returns a random uid: 60 bits as 12 of a–z and 2–7, which every path, cgroup and jailer accepts.
func NewUID() string { return strings.ToLower(rand.Text()[:uidLength]) }

// ValidUID says whether s can be a uid.
func ValidUID(s string) bool {
	return len(s) == uidLength && strings.IndexFunc(s, func(r rune) bool { return (r < 'a' || r > 'z') && (r < '2' || r > '7') }) < 0
}

// Bind gives the machine its first name, if nobody has it: microvm.ErrExists.
func (l *Lock) Bind(name string) error {
	err := os.Symlink(filepath.Join("..", "machines", l.uid), l.dir.name(name))
	if errors.Is(err, os.ErrExist) {
		return fmt.Errorf("name %q: %w", name, microvm.ErrExists)
	}
	if err != nil {
		return err
	}
	l.dir.hints.Store(l.uid, name)
	if l.fresh {
		return nil
	}
	return disk.SyncDir(l.dir.names())
}

// Unbind frees the machine's name, if it has one.
func (l *Lock) Unbind() error {
	name, err := l.dir.NameOf(l.uid)
	if err != nil || name == "" {
		return err
	}
	if err := ignoreMissing(os.Remove(l.dir.name(name))); err != nil {
		return err
	}
	return disk.SyncDir(l.dir.names())
}

// Rename gives the machine another name in one step, if nobody has it: microvm.ErrExists. When it returns the name survives power loss.
func (l *Lock) Rename(name string) error {
	if err := l.Move(name); err != nil {
		return err
	}
	return l.FlushName()
}

// FlushName makes the machine's name survive power loss.
func (l *Lock) FlushName() error { return disk.SyncDir(l.dir.names()) }

// Move is Rename without the flush.
func (l *Lock) Move(name string) error {
	old, err := l.dir.NameOf(l.uid)
	if err != nil || old == name {
		return err
	}
	if old == "" {
		return l.Bind(name)
	}
	err = unix.RenameNoReplace(l.dir.name(old), l.dir.name(name))
	if errors.Is(err, os.ErrExist) {
		return fmt.Errorf("name %q: %w", name, microvm.ErrExists)
	}
	if err != nil {
		return err
	}
	return nil
}

// Lookup returns the uid of the machine with this name, else the one with this uid, else microvm.ErrNotFound.
func (d *Dir) Lookup(ref string) (string, error) {
	if microvm.ValidateName(ref) != nil {
		return "", fmt.Errorf("%q: %w", ref, microvm.ErrNotFound)
	}
	if uid, err := d.target(ref); err == nil {
		return uid, nil
	} else if !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	if ValidUID(ref) {
		if _, err := os.Lstat(d.Machine(ref)); err == nil {
			return ref, nil
		}
	}
	return "", fmt.Errorf("%q: %w", ref, microvm.ErrNotFound)
}

// Taken says whether a machine has this name now.
func (d *Dir) Taken(name string) bool {
	_, err := os.Lstat(d.name(name))
	return err == nil
}

// target returns the uid that a name links to.
func (d *Dir) target(name string) (string, error) {
	link, err := os.Readlink(d.name(name))
	if errors.Is(err, syscall.EINVAL) {
		return "", fmt.Errorf("%s: %w: it is no symbolic link", d.name(name), ErrDamaged)
	}
	if err != nil {
		return "", err
	}
	dir, uid := filepath.Split(link)
	if dir != "../machines/" || !ValidUID(uid) {
		return "", fmt.Errorf("%s: %w: it links to %q", d.name(name), ErrDamaged, link)
	}
	return uid, nil
}

// Names returns the name of each uid that has one.
func (d *Dir) Names() (map[string]string, error) {
	entries, err := os.ReadDir(d.names())
	if err != nil {
		return nil, err
	}
	names := make(map[string]string, len(entries))
	for _, entry := range entries {
		uid, err := d.target(entry.Name())
		switch {
		case err == nil:
			names[uid] = entry.Name()
		case !errors.Is(err, os.ErrNotExist) && !errors.Is(err, ErrDamaged):
			return nil, err
		}
	}
	return names, nil
}

// NameOf returns the machine's name, "" when it has none.
func (d *Dir) NameOf(uid string) (string, error) {
	if hint, ok := d.hints.Load(uid); ok {
		if target, err := d.target(hint.(string)); err == nil && target == uid {
			return hint.(string), nil
		}
	}
	for range scans {
		names, err := d.Names()
		for uid, name := range names { // who asks for one may ask for all
			d.hints.Store(uid, name)
		}
		if name := names[uid]; name != "" || err != nil {
			return name, err
		}
	}
	d.hints.Delete(uid)
	return "", nil
}

// scans is how often a name is looked for: one that is renamed while the directory is read may be seen neither as the old one nor as the new.
const scans = 4

func (d *Dir) name(name string) string { return filepath.Join(d.names(), name) }
