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
	"github.com/tangle-network/microvm-runtime/internal/step"
)

// Path returns where a file of a snapshot is. Of a diff's memory that is only what it has itself: see Memory.
func (s *Store) Path(m *Manifest, file string) string { return s.file(m.UID, m.Files[file].Name) }

// WorkingSet returns the path of what pages of a snapshot's memory machines ask for first. It is there once somebody has written it, goes with the snapshot, and belongs to neither its manifest nor its
// archive.
func (s *Store) WorkingSet(uid string) string { return s.file(uid, workingSet) }

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
	if err := s.merge(ctx, whole, below, s.Path(m, Memory)); err != nil {
		return "", err
	}
	s.remember(ctx, m)
	return whole, nil
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

// Flatten makes a diff a full snapshot, which is over nothing. A full one is left as it is. Who holds the snapshot meanwhile finds the files of its manifest: Flatten waits for them.
func (s *Store) Flatten(ctx context.Context, uid string) error {
	steps := step.Begin("flatten", s.Hook)
	whole, err := s.whole(ctx, uid, steps)
	if err != nil {
		return err
	}
	lock, err := s.alone(ctx, uid)
	if err != nil {
		return err
	}
	defer lock.Close()
	m, err := s.Read(uid)
	if err != nil {
		return err
	}
	if m.Kind == microvm.SnapshotDiff {
		m.Kind, m.Parent, m.Files[Memory] = microvm.SnapshotFull, "", whole
		if err := steps.Do("write", func() error { return record.Write(s.file(uid, manifestFile), Version, m, true) }, nil); err != nil {
			return err
		}
		s.remember(ctx, &m)
	}
	if m.Files[Memory].Name == Memory {
		return nil
	}
	return steps.Do("remove", func() error { return os.RemoveAll(s.file(uid, Memory)) }, nil) // also what an interrupted one has left
}

// whole makes a diff's whole memory, and says what it is.
func (s *Store) whole(ctx context.Context, uid string, steps *step.Sequence) (whole File, err error) {
	hold, m, err := s.Hold(ctx, uid)
	if err != nil {
		return whole, err
	}
	defer hold.Release()
	if m.Kind == microvm.SnapshotFull {
		return m.Files[Memory], nil
	}
	if err := s.Verify(ctx, uid); err != nil { // what is damaged would be written down as if it were right
		return whole, err
	}
	err = steps.Do("merge", func() error {
		path, err := s.Memory(ctx, &m)
		if err == nil {
			whole, err = describe(ctx, path)
		}
		return err
	}, nil)
	return whole, err
}

// describe reads a file of a snapshot.
func describe(ctx context.Context, path string) (File, error) {
	f, err := os.Open(path)
	if err != nil {
		return File{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return File{}, err
	}
	sum, err := hash(ctx, f)
	return File{Name: filepath.Base(path), Size: info.Size(), Data: disk.Used(path), SHA256: sum}, err
}
