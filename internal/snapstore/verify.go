//go:build linux

package snapstore

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/disk"
	"github.com/tangle-network/microvm-runtime/internal/flock"
	"github.com/tangle-network/microvm-runtime/internal/record"
)

// hashBlock is how much of a file is one block of its hash, in bytes.
const hashBlock = 64 << 10

// hash returns the sha256 of what a file has: of each block that is not all zeros its offset (64 bits, little-endian) and its bytes, and last the file's size. So nobody reads, or hashes, the holes of a
// diff, and a copy that has holes where another has zeros is the same.
func hash(ctx context.Context, f *os.File) (string, error) {
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	h, block := sha256.New(), make([]byte, hashBlock)
	next := int64(0)
	for extent, err := range disk.Extents(f, info.Size()) {
		if err != nil {
			return "", err
		}
		for next = max(next, extent.Begin-extent.Begin%hashBlock); next < extent.End; next += hashBlock {
			if err := context.Cause(ctx); err != nil {
				return "", err
			}
			n, err := f.ReadAt(block, next)
			if err != nil && err != io.EOF {
				return "", err
			}
			if !zeros(block[:n]) {
				h.Write(binary.LittleEndian.AppendUint64(nil, uint64(next)))
				h.Write(block[:n])
			}
		}
	}
	h.Write(binary.LittleEndian.AppendUint64(nil, uint64(info.Size())))
	return hex.EncodeToString(h.Sum(nil)), nil
}

var zeroBlock [hashBlock]byte

func zeros(b []byte) bool { return bytes.Equal(b, zeroBlock[:len(b)]) }

// Verify reads all files of a snapshot, and of those that it is over: microvm.ErrIncompatible names the one that is not what was written.
func (s *Store) Verify(ctx context.Context, uid string) error {
	return s.chain(ctx, uid, func(m *Manifest) error { return s.verify(ctx, m) })
}

// chain calls a function for a snapshot, once it has for the one that it is over. None of them goes, or is flattened, meanwhile.
func (s *Store) chain(ctx context.Context, uid string, do func(*Manifest) error) error {
	hold, m, err := s.Hold(ctx, uid)
	if err != nil {
		return err
	}
	defer hold.Release()
	return s.chainOf(ctx, &m, do)
}

// chainOf is chain for a snapshot that the caller holds.
func (s *Store) chainOf(ctx context.Context, m *Manifest, do func(*Manifest) error) error {
	if m.Parent != "" {
		if err := s.chain(ctx, m.Parent, do); err != nil {
			return err
		}
	}
	return do(m)
}

func (s *Store) verify(ctx context.Context, m *Manifest) error {
	for _, file := range m.Files {
		f, err := os.OpenFile(s.file(m.UID, file.Name), os.O_RDONLY|syscall.O_NOFOLLOW, 0)
		if err != nil {
			return fmt.Errorf("%w: snapshot %s: %w", microvm.ErrIncompatible, m.Name, err)
		}
		sum, err := hash(ctx, f)
		f.Close()
		if err != nil {
			return err
		}
		if sum != file.SHA256 {
			return fmt.Errorf("%w: snapshot %s: %s is not what was written: its hash is %s, not %s", microvm.ErrIncompatible, m.Name, file.Name, sum, file.SHA256)
		}
	}
	if err := s.verifyFlat(ctx, m); err != nil {
		return err
	}
	s.remember(ctx, m)
	return nil
}

// checkedFile remembers, for a boot of the host, which files have been found to be what was written.
const checkedFile = "checked.json"

type checked struct {
	BootID string              `json:"boot_id"`
	Files  map[string]identity `json:"files"`
}

// identity tells a content of a file that nobody is to change from others. Its time of change does not belong to it: links change that.
type identity struct {
	Device  uint64 `json:"device"`
	Inode   uint64 `json:"inode"`
	Size    int64  `json:"size"`
	ModTime int64  `json:"mod_time"` // Nanoseconds since 1970.
}

func identify(path string) (identity, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return identity{}, err
	}
	stat := info.Sys().(*syscall.Stat_t)
	return identity{Device: stat.Dev, Inode: stat.Ino, Size: info.Size(), ModTime: info.ModTime().UnixNano()}, nil
}

// remember writes down that a snapshot's files are what was written. Nothing depends on it: where there is no space left for it, they are read again.
func (s *Store) remember(ctx context.Context, m *Manifest) {
	lock, err := flock.Lock(ctx, s.file(m.UID, checkedFile+".lock"))
	if err != nil {
		return
	}
	defer lock.Close()
	_ = s.note(s.path(m.UID), m)
}

func (s *Store) note(dir string, m *Manifest) error {
	c := checked{BootID: s.bootID, Files: map[string]identity{}}
	for _, name := range m.present(dir) {
		id, err := identify(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		c.Files[name] = id
	}
	return record.Write(filepath.Join(dir, checkedFile), Version, c, false)
}

// present returns the names of a snapshot's files, and of the whole memory that was made of a diff.
func (m *Manifest) present(dir string) (names []string) {
	for _, file := range m.Files {
		names = append(names, file.Name)
	}
	if _, err := os.Lstat(filepath.Join(dir, flat)); err == nil && m.Kind == microvm.SnapshotDiff {
		names = append(names, flat)
	}
	return names
}

// Check is Verify once in a boot of the host, of a snapshot that the caller holds.
func (s *Store) Check(ctx context.Context, m *Manifest) error {
	return s.chainOf(ctx, m, func(m *Manifest) error {
		if s.isChecked(m) {
			return nil
		}
		return s.verify(ctx, m)
	})
}

func (s *Store) isChecked(m *Manifest) bool {
	var c checked
	if err := record.Read(s.file(m.UID, checkedFile), Version, &c); err != nil || c.BootID != s.bootID {
		return false
	}
	for _, name := range m.present(s.path(m.UID)) {
		if id, err := identify(s.file(m.UID, name)); err != nil || id != c.Files[name] {
			return false
		}
	}
	return true
}
