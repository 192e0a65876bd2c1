//go:build linux

package snapstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/disk"
	"github.com/tangle-network/microvm-runtime/internal/flock"
	"github.com/tangle-network/microvm-runtime/internal/record"
)

// Path returns where a file of a snapshot is. Of a diff's memory that is only what it has itself: see Memory.
func (s *Store) Path(m *Manifest, file string) string { return s.file(m.UID, m.Files[file].Name) }

// Memory returns the path of a snapshot's whole memory. That of a diff is made once: a copy of its parent's, which shares its blocks where the file system can, with what was written since over it.
// Who asks meanwhile waits. The caller holds the snapshot.
func (s *Store) Memory(ctx context.Context, m *Manifest) (string, error) {
	if m.Kind == microvm.SnapshotFull {
		return s.Path(m, Memory), nil
	}
	lock, err := flock.Lock(ctx, s.file(m.UID, "flat.lock"))
	if err != nil {
		return "", err
	}
	defer lock.Close()
	whole := s.file(m.UID, flat)
	if _, err := os.Lstat(whole); err == nil {
		return whole, nil
	}
	hold, parent, err := s.Hold(ctx, m.Parent)
	if err != nil {
		return "", fmt.Errorf("what snapshot %s is over: %w", m.Name, err)
	}
	defer hold.Release()
	below, err := s.Memory(ctx, &parent)
	if err != nil {
		return "", err
	}
	return whole, s.merge(ctx, whole, below, s.Path(m, Memory))
}

// merge makes path of what is below, with the data of what is over it.
func (s *Store) merge(ctx context.Context, path, below, over string) (err error) {
	temp := path + record.NewSuffix
	if err := os.RemoveAll(temp); err != nil { // of who was interrupted
		return err
	}
	if _, err := disk.Clone(ctx, temp, below); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(temp))
		}
	}()
	if err := disk.Overlay(ctx, temp, over); err != nil {
		return err
	}
	if err := errors.Join(os.Chmod(temp, 0o444), disk.Sync(temp)); err != nil {
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		return err
	}
	return disk.SyncDir(filepath.Dir(path))
}

// Flatten makes a diff a full snapshot, which is over nothing. A full one is left as it is.
func (s *Store) Flatten(ctx context.Context, uid string) error {
	hold, m, err := s.Hold(ctx, uid)
	if err != nil {
		return err
	}
	defer hold.Release()
	if m.Kind == microvm.SnapshotFull {
		return nil
	}
	path, err := s.Memory(ctx, &m)
	if err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	sum, err := hash(ctx, f)
	if err != nil {
		return err
	}
	m.Kind, m.Parent, m.Files[Memory] = microvm.SnapshotFull, "", File{Name: flat, Size: info.Size(), Data: disk.Used(path), SHA256: sum}
	if err := record.Write(s.file(uid, manifestFile), Version, m, true); err != nil {
		return err
	}
	return errors.Join(s.remember(s.path(uid), &m), os.Remove(s.file(uid, Memory)))
}
