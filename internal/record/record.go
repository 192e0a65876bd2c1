//go:build linux

// Package record keeps small files of JSON that processes of several versions share.
//
// There are only three functions: [Write] replaces a record, [Read] reads one, [Replace] is Write for a text.
//
// # Caveats
//
// A record is replaced by rename: a reader sees the old one or the new one, whole. It carries its version and a checksum. One of a newer version is refused with
// microvm.ErrIncompatible; one that is torn, is no regular file, belongs to another user, has other names or lets others in is [ErrDamaged].
package record

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

const maxFile = 1 << 20

// NewSuffix ends the name of a file that is to replace another.
const NewSuffix = ".new"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// envelope is the form of every record on disk.
type envelope struct {
	Version int             `json:"version"`
	CRC32C  uint32          `json:"crc32c"` // Of the bytes of Body.
	Body    json.RawMessage `json:"body"`
}

// Write replaces path by the record, in one step for readers. With durable it survives power loss when Write returns. One that Read would not
// take, since it is too large, is microvm.ErrInvalid.
func Write(path string, version int, body any, durable bool) error {
	raw, err := json.Marshal(body)
	if err != nil {
		return err
	}
	text, err := json.Marshal(envelope{Version: version, CRC32C: crc32.Checksum(raw, castagnoli), Body: raw})
	if err != nil {
		return err
	}
	if len(text) >= maxFile { // nobody could read it
		return fmt.Errorf("%s: %w: a record of %d bytes, of at most %d", path, microvm.ErrInvalid, len(text), maxFile-1)
	}
	return Replace(path, append(text, '\n'), durable)
}

// Replace is Write for a text.
func Replace(path string, text []byte, durable bool) error {
	temp := path + NewSuffix
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

// Read fills body from the record at path, of the given version or an older one. It answers fs.ErrNotExist, ErrDamaged, or microvm.ErrIncompatible.
func Read(path string, version int, body any) error {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, syscall.ELOOP) {
		return fmt.Errorf("%s: %w: a symbolic link stands in its place", path, ErrDamaged)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if err := Ours(f, 0o077); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return err
	}
	if err := decode(text, version, body); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func decode(text []byte, version int, body any) error {
	var e envelope
	switch err := json.Unmarshal(text, &e); {
	case len(text) > maxFile:
		return fmt.Errorf("%w: larger than %d bytes", ErrDamaged, maxFile)
	case err != nil:
		return fmt.Errorf("%w: %v", ErrDamaged, err)
	case e.Version > version:
		return fmt.Errorf("%w: version %d, this program reads up to %d", microvm.ErrIncompatible, e.Version, version)
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

// Ours refuses what is no regular file or directory, what another user owns, and what others may change in a way of forbidden.
func Ours(f *os.File, forbidden os.FileMode) error {
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
	case info.Mode().IsRegular() && stat.Nlink > 1: // with 0 it was replaced since it was opened
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
