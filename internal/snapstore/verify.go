//go:build linux

package snapstore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/record"
)

// hash returns the sha256 of a file from its beginning. Holes are zeros.
func hash(ctx context.Context, f *os.File) (string, error) {
	h := sha256.New()
	if _, err := io.Copy(h, &cancelled{ctx, io.NewSectionReader(f, 0, 1<<62)}); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// cancelled ends a read with its context.
type cancelled struct {
	ctx context.Context
	io.Reader
}

func (c *cancelled) Read(p []byte) (int, error) {
	if err := context.Cause(c.ctx); err != nil {
		return 0, err
	}
	return c.Reader.Read(p)
}

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
			return fmt.Errorf("%w: snapshot %s: %s is not what was written: its sha256 is %s, not %s", microvm.ErrIncompatible, m.Name, file.Name, sum, file.SHA256)
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
