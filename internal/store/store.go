//go:build linux

// Package store keeps the read-only files that many machines share, each once.
//
// There are only two types: a [Store] and a [File] in it. A file is imported from a path of the user's, or made by a function under a key of the
// caller's. It belongs to this process's user, mode 0444, and is never changed, so that it can be hard-linked into any number of jails.
//
//	DIR/files/KEY           the files; KEY is the sha256 of what says where they come from
//	DIR/making/KEY[.lock]   one that is being made, and what is held meanwhile
//	DIR/lock                held by who is about to write down which files are needed, and by who collects those that are not
//
// # Caveats
//
// An import is recognised by path, inode, size and time of modification: who changes a file in place and sets its time back gets the old content. The content itself is
// not hashed: that would cost more than the copy.
package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/tangle-network/microvm-runtime/internal/disk"
	"github.com/tangle-network/microvm-runtime/internal/flock"
	"github.com/tangle-network/microvm-runtime/internal/tidy"
)

// Store is a directory of shared files. Any number of processes may use it at once.
type Store struct {
	dir string
}

// File is one file of a store.
type File struct {
	Path string
	Key  string // 64 lowercase hexadecimal digits: the same for the same origin.
	Size int64  // Bytes.
}

// Open makes the store's directories where they are missing.
func Open(dir string) (*Store, error) {
	for _, sub := range []string{"", "files", "making"} {
		if err := disk.MakeDir(filepath.Join(dir, sub)); err != nil {
			return nil, err
		}
	}
	return &Store{dir: dir}, nil
}

// Tree says what is ours in the store's directory.
func Tree(dir string) tidy.Tree {
	file := func(_ string, entry fs.DirEntry) bool { return validKey(entry.Name()) }
	making := func(_ string, entry fs.DirEntry) bool { return isMaking(entry) }
	own := func(_ string, entry fs.DirEntry) bool {
		return slices.Contains([]string{"lock", oldTemp}, entry.Name())
	}
	return tidy.Tree{Dir: dir, Ours: own, Below: []tidy.Tree{{Dir: "files", Ours: file}, {Dir: "making", Ours: making}}}
}

func validKey(name string) bool {
	sum, err := hex.DecodeString(name)
	return err == nil && len(sum) == sha256.Size
}

// Make returns the file that was made under key before, or calls create to make it at a path in the store. When several callers, also of
// several processes, ask for one key at once, one makes it and the others wait; those of other keys don't. The file may be collected once the caller does not hold the store.
func (s *Store) Make(ctx context.Context, key string, create func(temp string) error) (File, error) {
	key = digest(key)
	if file, err := s.find(key); err == nil {
		return file, nil
	}
	release, err := s.Hold(ctx)
	if err != nil {
		return File{}, err
	}
	defer release()
	temp := filepath.Join(s.dir, "making", key)
	lock, err := flock.Lock(ctx, temp+lockSuffix)
	if err != nil {
		return File{}, err
	}
	defer lock.Close()
	defer os.Remove(lock.Name())
	if file, err := s.find(key); err == nil {
		return file, nil
	}
	defer os.Remove(temp)
	if err := os.Remove(temp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return File{}, err
	}
	if err := create(temp); err != nil {
		return File{}, err
	}
	if err := seal(temp); err != nil {
		return File{}, err
	}
	if err := os.Rename(temp, s.path(key)); err != nil {
		return File{}, err
	}
	if err := disk.SyncDir(filepath.Join(s.dir, "files")); err != nil {
		return File{}, err
	}
	return s.find(key)
}

// lockSuffix ends the name of the file whose lock is held while another is made.
const lockSuffix = ".lock"

func (s *Store) path(key string) string { return filepath.Join(s.dir, "files", key) }

func (s *Store) find(key string) (File, error) {
	info, err := os.Lstat(s.path(key))
	if err != nil {
		return File{}, err
	}
	return File{Path: s.path(key), Key: key, Size: info.Size()}, nil
}

// seal makes the file read-only and durable.
func seal(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Chmod(0o444), f.Sync(), f.Close())
}

func digest(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:])
}
