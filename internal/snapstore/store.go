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
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/disk"
	"github.com/tangle-network/microvm-runtime/internal/flock"
	"github.com/tangle-network/microvm-runtime/internal/record"
	"github.com/tangle-network/microvm-runtime/internal/state"
	"github.com/tangle-network/microvm-runtime/internal/tidy"
	"github.com/tangle-network/microvm-runtime/internal/unix"
)

// Store is a directory of snapshots. Any number of processes may use it at once.
type Store struct {
	dir    string
	bootID string
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
	return tidy.Tree{Dir: dir, Below: []tidy.Tree{{Dir: "names", Ours: machine}, {Dir: "all", Ours: snapshot}, {Dir: "new", Ours: snapshot}}}
}

func (s *Store) path(uid string) string       { return filepath.Join(s.dir, "all", uid) }
func (s *Store) link(name string) string      { return filepath.Join(s.dir, "names", name) }
func (s *Store) file(uid, file string) string { return filepath.Join(s.path(uid), file) }
func notFound(ref string) error               { return fmt.Errorf("snapshot %q: %w", ref, microvm.ErrNotFound) }
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

// Lookup returns the uid of the snapshot with this name, "machine/snapshot", else of the one with this uid, else microvm.ErrNotFound.
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
	_, err := s.Read(ref)
	return ref, err
}

// Read returns a snapshot's manifest: microvm.ErrNotFound, microvm.ErrIncompatible when it is newer, or record.ErrDamaged.
func (s *Store) Read(uid string) (m Manifest, err error) {
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
	return m.Files[State].Name != "" && m.Files[Memory].Name != "" && (m.Kind == microvm.SnapshotFull || state.ValidUID(m.Parent))
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

// names returns the names of all snapshots, sorted.
func (s *Store) names() (names []string, err error) {
	links, err := filepath.Glob(filepath.Join(s.dir, "names", "*", "*"))
	for _, link := range links {
		machine, snapshot := filepath.Base(filepath.Dir(link)), filepath.Base(link)
		if name := machine + "/" + snapshot; microvm.ValidateSnapshotName(name) == nil {
			names = append(names, name)
		}
	}
	slices.SortFunc(names, func(a, b string) int { return strings.Compare(a, b) })
	return names, err
}

// Bytes returns how much of the host's disk the snapshots' files have. What they share with others is counted as if they did not.
func (s *Store) Bytes() (sum int64, err error) {
	for _, dir := range []string{"all", "new"} {
		files, err := filepath.Glob(filepath.Join(s.dir, dir, "*", "*"))
		if err != nil {
			return 0, err
		}
		for _, file := range files {
			sum += disk.Used(file)
		}
	}
	return sum, nil
}

// Hold keeps a snapshot from being deleted.
type Hold struct{ lock *os.File }

// Release lets it go.
func (h *Hold) Release() { h.lock.Close() }

// Hold waits, while somebody deletes the snapshot, for the right to use it.
func (s *Store) Hold(ctx context.Context, uid string) (*Hold, Manifest, error) {
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
	lock, err := flock.Lock(ctx, s.file(uid, lockFile))
	if errors.Is(err, os.ErrNotExist) {
		return notFound(uid)
	}
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := s.unneeded(uid, inUse); err != nil {
		return err
	}
	names, err := s.names()
	if err != nil {
		return err
	}
	for _, name := range names { // that of the manifest, which may be damaged
		if !s.leadsTo(name, uid) {
			continue
		}
		if err := s.unlink(name); err != nil {
			return err
		}
	}
	return os.RemoveAll(s.path(uid))
}

// unlink frees a name.
func (s *Store) unlink(name string) error {
	err := errors.Join(os.Remove(s.link(name)), disk.SyncDir(filepath.Dir(s.link(name))))
	os.Remove(filepath.Dir(s.link(name))) // where that was the last of the machine's
	return err
}

func (s *Store) unneeded(uid string, inUse func() (string, error)) error {
	all, err := s.List()
	if err != nil {
		return err
	}
	for _, other := range all {
		if other.Parent == uid {
			return fmt.Errorf("%w: snapshot %s is over it (flatten or delete that first)", microvm.ErrBusy, other.Name)
		}
		if other.Problem != nil && other.UID != uid {
			return fmt.Errorf("what snapshot %s is over is not known (delete it): %w", other.Name, other.Problem)
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
	for _, dir := range []string{"new", "all"} {
		entries, failed := os.ReadDir(filepath.Join(s.dir, dir))
		err = errors.Join(err, failed)
		for _, entry := range entries {
			if !state.ValidUID(entry.Name()) || dir == "all" && s.hasName(entry.Name()) {
				continue
			}
			gone, failed := s.sweep(filepath.Join(s.dir, dir, entry.Name()), entry.Name())
			if err = errors.Join(err, failed); gone {
				removed = append(removed, entry.Name())
			}
		}
	}
	return removed, err
}

func (s *Store) hasName(uid string) bool {
	names, err := s.names()
	return err != nil || slices.ContainsFunc(names, func(name string) bool { return s.leadsTo(name, uid) })
}

// sweep removes a directory that nobody holds. It may have got its name, or have been removed, meanwhile.
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
	if s.hasName(uid) {
		return false, nil
	}
	return true, os.RemoveAll(dir)
}
