//go:build linux

package store

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/tangle-network/microvm-runtime/internal/flock"
)

// Hold keeps all files from being collected until release is called. It is for who gets paths from the store and has yet to write down that they are needed. Any number may hold it at once; when ctx
// ends, which Collect can make it wait for, it answers microvm.ErrBusy.
func (s *Store) Hold(ctx context.Context) (release func(), err error) {
	lock, err := flock.Share(ctx, s.lockPath())
	if err != nil {
		return nil, err
	}
	return func() { lock.Close() }, nil
}

func (s *Store) lockPath() string { return filepath.Join(s.dir, "lock") }

// Collect removes the files that nobody needs, and what interrupted calls left. It waits until nobody holds the store, and asks then which keys are needed; while it works nobody gets hold of it. A
// file that is removed stays where it is linked, and is made again when it is asked for again.
func (s *Store) Collect(ctx context.Context, needed func() (map[string]bool, error)) (removed []File, err error) {
	lock, err := flock.Lock(ctx, s.lockPath())
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	keys, err := needed()
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(filepath.Join(s.dir, "files"))
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		key := entry.Name()
		if !validKey(key) || keys[key] {
			continue
		}
		file, err := s.find(key)
		if err == nil {
			err = os.Remove(file.Path)
		}
		if err != nil {
			return removed, err
		}
		removed = append(removed, file)
	}
	return removed, s.sweep()
}

// sweep removes what is half made: nobody makes anything.
func (s *Store) sweep() error {
	entries, err := os.ReadDir(filepath.Join(s.dir, "making"))
	if err != nil {
		return err
	}
	var errs []error
	for _, entry := range entries {
		if isMaking(entry) {
			errs = append(errs, os.Remove(filepath.Join(s.dir, "making", entry.Name())))
		}
	}
	if err := os.Remove(filepath.Join(s.dir, oldTemp)); !errors.Is(err, os.ErrNotExist) {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// oldTemp was what programs made that made one file at a time.
const oldTemp = "new"

func isMaking(entry fs.DirEntry) bool { return validKey(strings.TrimSuffix(entry.Name(), lockSuffix)) }
