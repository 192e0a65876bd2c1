//go:build linux

package snapstore

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/record"
	"github.com/tangle-network/microvm-runtime/internal/unix"
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
	for at := int64(0); at < info.Size(); at += hashBlock {
		if err := context.Cause(ctx); err != nil {
			return "", err
		}
		data, err := unix.NextData(f, at)
		if errors.Is(err, syscall.ENXIO) { // holes to the end
			break
		}
		if err != nil {
			return "", err
		}
		at = data - data%hashBlock
		n, err := f.ReadAt(block, at)
		if err != nil && err != io.EOF {
			return "", err
		}
		if !zeros(block[:n]) {
			h.Write(binary.LittleEndian.AppendUint64(nil, uint64(at)))
			h.Write(block[:n])
		}
	}
	h.Write(binary.LittleEndian.AppendUint64(nil, uint64(info.Size())))
	return hex.EncodeToString(h.Sum(nil)), nil
}

var zeroBlock [hashBlock]byte

func zeros(b []byte) bool { return bytes.Equal(b, zeroBlock[:len(b)]) }

// Verify reads all files of a snapshot, and of those that it is over: microvm.ErrIncompatible names the one that is not what was written.
func (s *Store) Verify(ctx context.Context, uid string) error {
	return s.chain(uid, func(m *Manifest) error { return s.verify(ctx, m) })
}

// chain calls a function for a snapshot, and those that it is over.
func (s *Store) chain(uid string, do func(*Manifest) error) error {
	for seen := map[string]bool{}; uid != "" && !seen[uid]; {
		seen[uid] = true
		m, err := s.Read(uid)
		if err == nil {
			err = do(&m)
		}
		if err != nil {
			return err
		}
		uid = m.Parent
	}
	return nil
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
	return s.remember(s.path(m.UID), m)
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

func (s *Store) remember(dir string, m *Manifest) error {
	c := checked{BootID: s.bootID, Files: map[string]identity{}}
	for _, file := range m.Files {
		id, err := identify(filepath.Join(dir, file.Name))
		if err != nil {
			return err
		}
		c.Files[file.Name] = id
	}
	return record.Write(filepath.Join(dir, checkedFile), Version, c, false)
}

// Check is Verify once in a boot of the host.
func (s *Store) Check(ctx context.Context, uid string) error {
	return s.chain(uid, func(m *Manifest) error {
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
	for _, file := range m.Files {
		id, err := identify(s.file(m.UID, file.Name))
		if err != nil || id != c.Files[file.Name] || id.Size != file.Size {
			return false
		}
	}
	return true
}
