//go:build linux

package snapstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/disk"
	"github.com/tangle-network/microvm-runtime/internal/flock"
	"github.com/tangle-network/microvm-runtime/internal/record"
	"github.com/tangle-network/microvm-runtime/internal/state"
	"github.com/tangle-network/microvm-runtime/internal/step"
)

// Draft is a snapshot that is being made: a directory that the caller fills. It belongs to one goroutine.
type Draft struct {
	store *Store
	uid   string
	dir   string
	lock  *os.File
}

// Begin makes a draft.
func (s *Store) Begin(ctx context.Context) (_ *Draft, err error) {
	for {
		d := &Draft{store: s, uid: state.NewUID()}
		d.dir = filepath.Join(s.dir, "new", d.uid)
		if err := os.Mkdir(d.dir, 0o700); err != nil {
			return nil, err
		}
		d.lock, err = flock.Lock(ctx, filepath.Join(d.dir, lockFile))
		if err == nil {
			return d, nil
		}
		if !errors.Is(err, os.ErrNotExist) { // else it was swept away before it had its lock
			return nil, errors.Join(err, os.RemoveAll(d.dir))
		}
	}
}

// UID returns what the snapshot will be known by.
func (d *Draft) UID() string { return d.uid }

// Path returns where a file of the snapshot is to be.
func (d *Draft) Path(file string) string { return filepath.Join(d.dir, file) }

// Taken says whether the name is taken. Bind decides; this spares the work.
func (s *Store) Taken(name string) bool {
	_, err := os.Lstat(s.link(name))
	return err == nil
}

// Seal makes the draft's files what the snapshot's are, and writes down what they are: when it returns, they and m survive power loss. It fills UID, Name and Files of m in.
func (d *Draft) Seal(ctx context.Context, name string, m *Manifest) error {
	if err := microvm.ValidateSnapshotName(name); err != nil {
		return err
	}
	m.UID, m.Name, m.Files = d.uid, name, map[string]File{}
	for _, file := range []string{State, Memory, Disk} {
		sealed, err := d.seal(ctx, file)
		if file == Disk && errors.Is(err, os.ErrNotExist) { // not each machine has one
			continue
		}
		if err != nil {
			return err
		}
		m.Files[file] = sealed
	}
	if err := d.store.note(d.dir, m); err != nil {
		return err
	}
	return record.Write(d.Path(manifestFile), Version, m, true)
}

func (d *Draft) seal(ctx context.Context, file string) (sealed File, err error) {
	f, err := os.Open(d.Path(file))
	if err != nil {
		return sealed, err
	}
	if err := errors.Join(f.Chown(os.Geteuid(), os.Getegid()), f.Chmod(0o444), f.Sync(), f.Close()); err != nil {
		return sealed, err
	}
	return describe(ctx, d.Path(file))
}

// Place brings a sealed draft to where snapshots are. It has no name yet, so it is none.
func (d *Draft) Place() error {
	place := d.store.path(d.uid)
	if err := os.Rename(d.dir, place); err != nil {
		return err
	}
	d.dir = place
	return disk.SyncDir(filepath.Dir(place))
}

// Bind gives the snapshot its name, if nothing has it: microvm.ErrExists. It is the commit point.
func (d *Draft) Bind(name string) error {
	machine, _, _ := strings.Cut(name, "/")
	if err := disk.MakeDir(d.store.link(machine)); err != nil {
		return err
	}
	err := os.Symlink(filepath.Join("..", "..", "all", d.uid), d.store.link(name))
	if errors.Is(err, os.ErrNotExist) { // the directory went with the last snapshot in it, meanwhile
		return d.Bind(name)
	}
	if errors.Is(err, os.ErrExist) {
		return fmt.Errorf("snapshot %q: %w", name, microvm.ErrExists)
	}
	if err != nil {
		return err
	}
	return disk.SyncDir(d.store.link(machine))
}

// Unbind takes Bind back.
func (d *Draft) Unbind(name string) error {
	if !d.store.leadsTo(name, d.uid) {
		return nil
	}
	return d.store.unlink(name)
}

// Close ends the draft. Without a name it goes, with all that is in it.
func (d *Draft) Close() (err error) {
	named, err := d.store.hasName(d.uid)
	if !named && err == nil {
		err = d.store.remove(d.dir, d.uid, step.Begin("discard", nil))
	}
	return errors.Join(err, d.lock.Close())
}
