//go:build linux

package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"syscall"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/disk"
)

// ErrDamaged is returned for a file that can't be what this package wrote.
var ErrDamaged = errors.New("damaged")

// Version is the version of records that this package writes. It reads this and all older ones.
const Version = 1

const maxFile = 1 << 20

// newSuffix ends the name of a file that is to replace another.
const newSuffix = ".new"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// envelope is the form of every record on disk.
type envelope struct {
	Version int             `json:"version"`
	CRC32C  uint32          `json:"crc32c"` // Of the bytes of Body.
	Body    json.RawMessage `json:"body"`
}

// write replaces path by the record, in one step for readers. With durable it survives power loss when write returns.
func write(path string, body any, durable bool) error {
	raw, err := json.Marshal(body)
	if err != nil {
		return err
	}
	text, err := json.Marshal(envelope{Version: Version, CRC32C: crc32.Checksum(raw, castagnoli), Body: raw})
	if err != nil {
		return err
	}
	return replace(path, append(text, '\n'), durable)
}

// replace is write for a text.
func replace(path string, text []byte, durable bool) error {
	temp := path + newSuffix
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err == nil && durable {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		return errors.Join(err, ignoreMissing(os.Remove(temp)))
	}
	if durable {
		return disk.SyncDir(filepath.Dir(path))
	}
	return nil
}

// read fills body from the record at path. It answers fs.ErrNotExist, ErrDamaged, or microvm.ErrIncompatible.
func read(path string, body any) error {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, syscall.ELOOP) {
		return fmt.Errorf("%s: %w: a symbolic link stands in its place", path, ErrDamaged)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if err := ours(f, 0o077); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return err
	}
	if err := decode(text, body); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func decode(text []byte, body any) error {
	var e envelope
	switch err := json.Unmarshal(text, &e); {
	case len(text) > maxFile:
		return fmt.Errorf("%w: larger than %d bytes", ErrDamaged, maxFile)
	case err != nil:
		return fmt.Errorf("%w: %v", ErrDamaged, err)
	case e.Version > Version:
		return fmt.Errorf("%w: version %d, this program reads up to %d", microvm.ErrIncompatible, e.Version, Version)
	case e.Version < 1:
		return fmt.Errorf("%w: version %d", ErrDamaged, e.Version)
	case crc32.Checksum(e.Body, castagnoli) != e.CRC32C:
		return fmt.Errorf("%w: checksum does not match", ErrDamaged)
	}
	if err := json.Unmarshal(e.Body, body); err != nil {
		return fmt.Errorf("%w: %v", ErrDamaged, err)
	}
	return nil
}

// ours refuses what is no regular file or directory, what another user owns, and what others may change in a way of forbidden.
func ours(f *os.File, forbidden os.FileMode) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	stat := info.Sys().(*syscall.Stat_t)
	switch {
	case !info.Mode().IsRegular() && !info.IsDir():
		return fmt.Errorf("%w: mode %v", ErrDamaged, info.Mode())
	case int(stat.Uid) != os.Geteuid():
		return fmt.Errorf("%w: belongs to user %d, not to %d", ErrDamaged, stat.Uid, os.Geteuid())
	case info.Mode().Perm()&forbidden != 0:
		return fmt.Errorf("%w: mode %04o lets others in (chmod %04o)", ErrDamaged, info.Mode().Perm(), info.Mode().Perm()&^forbidden)
	case info.Mode().IsRegular() && stat.Nlink != 1:
		return fmt.Errorf("%w: has %d links", ErrDamaged, stat.Nlink)
	}
	return nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
