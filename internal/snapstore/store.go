//go:build linux

package snapstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/disk"
	"github.com/tangle-network/microvm-runtime/internal/flock"
	"github.com/tangle-network/microvm-runtime/internal/record"
	"github.com/tangle-network/microvm-runtime/internal/state"
	"github.com/tangle-network/microvm-runtime/internal/step"
	"github.com/tangle-network/microvm-runtime/internal/tidy"
	"github.com/tangle-network/microvm-runtime/internal/unix"
)

// Store is a directory of snapshots. Any number of processes may use it at once.
type Store struct {
	dir    string
	bootID string
	// Hook is called at the steps of Flatten, Delete and Import. Nil in production.
	Hook step.Hook
}

const (
	manifestFile = "manifest.json"
	lockFile     = "lock"
)

// Open makes the store's directories where they are missing.
func Open(dir string) (*Store, error) {
	for _, sub := range []string{"", "names", "all", "new"} {
		if err := disk.MakeDir(filepath.Join(dir, sub)); err != nil {
			return nil, err
		}
	}
	bootID, err := unix.BootID()
	return &Store{dir: dir, bootID: bootID}, err
}

// Tree says what is ours in the store's directory.
func Tree(dir string) tidy.Tree {
	snapshot := func(_ string, entry fs.DirEntry) bool { return entry.IsDir() && state.ValidUID(entry.Name()) }
	machine := func(_ string, entry fs.DirEntry) bool {
		return entry.IsDir() && microvm.ValidateName(entry.Name()) == nil
	}
	making := func(dir string, entry fs.DirEntry) bool {
		return snapshot(dir, entry) || strings.HasPrefix(entry.Name(), removedPrefix)
	}
	return tidy.Tree{Dir: dir, Below: []tidy.Tree{{Dir: "names", Ours: machine}, {Dir: "all", Ours: snapshot}, {Dir: "new", Ours: making}}}
}

func (s *Store) path(uid string) string       { return filepath.Join(s.dir, "all", uid) }
func (s *Store) link(name string) string      { return filepath.Join(s.dir, "names", name) }
func (s *Store) file(uid, file string) string { return filepath.Join(s.path(uid), file) }

func notFound(ref string) error { return fmt.Errorf("snapshot %q: %w", ref, microvm.ErrNotFound) }

// leadsTo says whether a name is a snapshot's.
func (s *Store) leadsTo(name, uid string) bool {
	got, err := s.target(name)
	return err == nil && got == uid
}

// target returns the uid that a name links to.
func (s *Store) target(name string) (string, error) {
	link, err := os.Readlink(s.link(name))
	if err != nil {
		return "", err
	}
	dir, uid := filepath.Split(link)
	if dir != "../../all/" || !state.ValidUID(uid) {
		return "", fmt.Errorf("%s: %w: it links to %q", s.link(name), record.ErrDamaged, link)
	}
	return uid, nil
}

// Lookup returns the uid of the snapshot with this name, "machine/snapshot", else of the one with this uid, else microvm.ErrNotFound. It reads no manifest.
func (s *Store) Lookup(ref string) (string, error) {
	if microvm.ValidateSnapshotName(ref) == nil {
		uid, err := s.target(ref)
		if errors.Is(err, os.ErrNotExist) {
			err = notFound(ref)
		}
		return uid, err
	}
	if !state.ValidUID(ref) {
		return "", notFound(ref)
	}
	if _, err := os.Lstat(s.file(ref, manifestFile)); errors.Is(err, os.ErrNotExist) {
		return "", notFound(ref)
	} else if err != nil {
		return "", err
	}
	return ref, nil
}

// Read returns a snapshot's manifest: microvm.ErrNotFound, microvm.ErrIncompatible when it is newer, or record.ErrDamaged.
func (s *Store) Read(uid string) (m Manifest, err error) {
	if !state.ValidUID(uid) {
		return m, notFound(uid)
	}
	err = record.Read(s.file(uid, manifestFile), Version, &m)
	if errors.Is(err, os.ErrNotExist) || err == nil && !s.leadsTo(m.Name, uid) {
		return m, notFound(uid)
	}
	if err == nil && (m.UID != uid || !m.whole()) {
		err = fmt.Errorf("%s: %w: it is not a manifest of this snapshot", s.file(uid, manifestFile), record.ErrDamaged)
	}
	return m, err
}

// whole says whether a manifest names all that a snapshot has, and nothing outside of it.
func (m *Manifest) whole() bool {
	for name, file := range m.Files {
		if !slices.Contains([]string{State, Memory, Disk}, name) || file.Name != name && file.Name != flat {
			return false
		}
	}
	parent := m.Kind == microvm.SnapshotFull && m.Parent == "" || m.Kind == microvm.SnapshotDiff && state.ValidUID(m.Parent) && m.Parent != m.UID
	return m.Files[State].Name != "" && m.Files[Memory].Name != "" && parent
}

// Listed is a snapshot of a list.
type Listed struct {
	Manifest
	Problem error // Why the manifest can't be read: then only UID and Name are set.
}

// List returns all snapshots, sorted by name.
func (s *Store) List() ([]Listed, error) {
	names, err := s.names()
	if err != nil {
		return nil, err
	}
	var all []Listed
	for _, name := range names {
		uid, err := s.target(name)
		if errors.Is(err, os.ErrNotExist) { // deleted meanwhile
			continue
		}
		one := Listed{Problem: err}
		if err == nil {
			one.Manifest, one.Problem = s.Read(uid)
		}
		if errors.Is(one.Problem, microvm.ErrNotFound) {
			continue
		}
		one.UID, one.Name = uid, name
		all = append(all, one)
	}
	return all, nil
}

// names returns the names of all snapshots, sorted, or an error when there may be others: what is not among them is removed. What leads to no snapshot, such as a file, or a link to elsewhere, is not ours.
func (s *Store) names() (names []string, err error) {
	machines, err := os.ReadDir(filepath.Join(s.dir, "names"))
	if err != nil {
		return nil, err
	}
	for _, machine := range machines {
		if !machine.IsDir() {
			continue
		}
		links, err := os.ReadDir(s.link(machine.Name()))
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) { // it went with the last name in it
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, link := range links {
			name := machine.Name() + "/" + link.Name()
			if microvm.ValidateSnapshotName(name) != nil || link.Type() != fs.ModeSymlink {
				continue
			}
			if _, err := s.target(name); !errors.Is(err, record.ErrDamaged) {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return names, nil
}

// hasName says whether any name is the snapshot's.
func (s *Store) hasName(uid string) (bool, error) {
	names, err := s.names()
	return slices.ContainsFunc(names, func(name string) bool { return s.leadsTo(name, uid) }), err
}

// named returns the uids of all that have a name.
func (s *Store) named() (map[string]bool, error) {
	names, err := s.names()
	uids := map[string]bool{}
	for _, name := range names {
		if uid, err := s.target(name); err == nil {
			uids[uid] = true
		}
	}
	return uids, err
}

// Bytes returns how much of the host's disk the snapshots' files have. What they share with others is counted as if they did not.
func (s *Store) Bytes() (sum int64, err error) {
	for _, dir := range []string{"all", "new"} {
		snapshots, err := os.ReadDir(filepath.Join(s.dir, dir))
		if err != nil {
			return 0, err
		}
		for _, snapshot := range snapshots {
			sum += bytesIn(filepath.Join(s.dir, dir, snapshot.Name()))
		}
	}
	return sum, nil
}

// bytesIn is Bytes of one directory, which may be going.
func bytesIn(dir string) (sum int64) {
	files, _ := os.ReadDir(dir)
	for _, file := range files {
		sum += disk.Used(filepath.Join(dir, file.Name()))
	}
	return sum
}

// Hold keeps a snapshot from being deleted.
type Hold struct{ lock *os.File }

// Release lets it go.
func (h *Hold) Release() { h.lock.Close() }

// Hold waits, while somebody deletes the snapshot, for the right to use it.
func (s *Store) Hold(ctx context.Context, uid string) (*Hold, Manifest, error) {
	if !state.ValidUID(uid) {
		return nil, Manifest{}, notFound(uid)
	}
	lock, err := flock.Share(ctx, s.file(uid, lockFile))
	if errors.Is(err, os.ErrNotExist) {
		err = notFound(uid)
	}
	if err != nil {
		return nil, Manifest{}, err
	}
	m, err := s.Read(uid)
	if err != nil {
		lock.Close()
		return nil, m, err
	}
	return &Hold{lock}, m, nil
}

// Delete removes a snapshot, unless another is over it, or inUse says who uses it: microvm.ErrBusy.
func (s *Store) Delete(ctx context.Context, uid string, inUse func() (user string, err error)) error {
	lock, err := s.alone(ctx, uid)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := s.known(uid); err != nil {
		return err
	}
	if err := s.unneeded(uid, nil, inUse); err != nil {
		return err
	}
	return s.erase(uid)
}

// erase removes a snapshot, whose lock the caller has.
func (s *Store) erase(uid string) error {
	steps := step.Begin("delete", s.Hook)
	if err := steps.Do("unname", func() error { return s.unname(uid) }, nil); err != nil {
		return err
	}
	return steps.Do("remove", func() error { return s.remove(s.path(uid), uid, steps) }, nil)
}

// alone waits until nobody holds a snapshot, and keeps it so.
func (s *Store) alone(ctx context.Context, uid string) (*os.File, error) {
	if !state.ValidUID(uid) {
		return nil, notFound(uid)
	}
	lock, err := flock.Lock(ctx, s.file(uid, lockFile))
	if errors.Is(err, os.ErrNotExist) {
		err = notFound(uid)
	}
	return lock, err
}

// unname frees a snapshot's names: that of its manifest, which may be damaged.
func (s *Store) unname(uid string) error {
	names, err := s.names()
	for _, name := range names {
		if err == nil && s.leadsTo(name, uid) {
			err = s.unlink(name)
		}
	}
	return err
}

// removedPrefix begins the names of directories that are being removed, in "new".
const removedPrefix = ".removed-"

// remove removes a snapshot's directory, whose lock the caller has. It is renamed first: whoever wants the lock makes its file anew, and a directory that others fill can't be removed.
func (s *Store) remove(dir, uid string, steps *step.Sequence) error {
	gone := filepath.Join(s.dir, "new", removedPrefix+uid)
	if err := steps.Do("move", func() error { return os.Rename(dir, gone) }, nil); err != nil {
		return err
	}
	return removeAll(gone)
}

// removeAll removes a moved directory, in which who has wanted its lock at the moment of the move may make that file anew.
func removeAll(dir string) (err error) {
	for range 10 {
		if err = os.RemoveAll(dir); !errors.Is(err, syscall.ENOTEMPTY) {
			return err
		}
	}
	return err
}

// unlink frees a name.
func (s *Store) unlink(name string) error {
	if err := os.Remove(s.link(name)); err != nil {
		return err
	}
	machine := filepath.Dir(s.link(name))
	err := disk.SyncDir(machine)
	if errors.Is(err, os.ErrNotExist) { // who freed the last of the machine's was faster
		return disk.SyncDir(filepath.Dir(machine))
	}
	os.Remove(machine) // where that was the last
	return err
}

// known refuses a snapshot that a damaged one may be over, for whoever deletes by hand to see to that first. Nobody can restore what is over a damaged one: so of several damaged ones each can be deleted.
func (s *Store) known(uid string) error {
	all, err := s.List()
	if err != nil {
		return err
	}
	_, own := s.Read(uid)
	for _, other := range all {
		if errors.Is(other.Problem, record.ErrDamaged) && other.UID != uid && !errors.Is(own, record.ErrDamaged) {
			return overUnknown(&other)
		}
	}
	return nil
}

func overUnknown(other *Listed) error {
	return fmt.Errorf("what snapshot %s is over is not known (delete it): %w", other.Name, other.Problem)
}

// unneeded says what needs a snapshot: another that is over it, and not gone, or who uses it. Its lock is held. A damaged one, which nobody can restore, needs nothing.
func (s *Store) unneeded(uid string, gone map[string]bool, inUse func() (string, error)) error {
	all, err := s.List()
	if err != nil {
		return err
	}
	_, own := s.Read(uid)
	for _, other := range all {
		if other.Parent == uid && !gone[other.UID] {
			return fmt.Errorf("%w: snapshot %s is over it (flatten or delete that first)", microvm.ErrBusy, other.Name)
		}
		if other.Problem != nil && other.UID != uid && !errors.Is(other.Problem, record.ErrDamaged) && !errors.Is(own, record.ErrDamaged) {
			return overUnknown(&other)
		}
	}
	user, err := inUse()
	if err == nil && user != "" {
		err = fmt.Errorf("%w: machine %s runs from it", microvm.ErrBusy, user)
	}
	return err
}

// Sweep removes what interrupted makers and deleters have left, and returns the uids.
func (s *Store) Sweep() (removed []string, err error) {
	named, unknown := s.named()
	err = unknown
	for _, dir := range []string{"new", "all"} {
		entries, failed := os.ReadDir(filepath.Join(s.dir, dir))
		err = errors.Join(err, failed)
		for _, entry := range entries {
			path := filepath.Join(s.dir, dir, entry.Name())
			if strings.HasPrefix(entry.Name(), removedPrefix) {
				err = errors.Join(err, removeAll(path))
			}
			if unknown != nil || !entry.IsDir() || !state.ValidUID(entry.Name()) || named[entry.Name()] {
				continue
			}
			gone, failed := s.sweep(path, entry.Name())
			if err = errors.Join(err, failed); gone {
				removed = append(removed, entry.Name())
			}
		}
	}
	return removed, err
}

// sweep removes a directory that had no name, unless somebody holds it.
func (s *Store) sweep(dir, uid string) (gone bool, err error) {
	const glance = 5 * time.Millisecond // a lock that is free is had at once
	ctx, cancel := context.WithTimeout(context.Background(), glance)
	defer cancel()
	lock, err := flock.Lock(ctx, filepath.Join(dir, lockFile))
	if errors.Is(err, microvm.ErrBusy) || errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer lock.Close()
	if named, err := s.hasName(uid); named || err != nil { // it has got one meanwhile
		return false, err
	}
	err = s.remove(dir, uid, step.Begin("sweep", nil))
	return err == nil, err
}
