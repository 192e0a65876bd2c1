// Package tidy removes what is ours from directories that others may have put something into.
//
// There is only one type: a [Tree] says what is ours in a directory.
package tidy

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

// Tree is a directory of ours.
type Tree struct {
	Dir string // Path; of one that is Below, its name.
	// Ours says which entries go, with all that is in them. Optional: none but Below and Marker.
	Ours func(dir string, entry fs.DirEntry) bool
	// Below are directories in it to which the same applies.
	Below []Tree
	// Marker is the name of the file that says whose the directory is. It goes last, so that an interrupted removal can be repeated. Optional.
	Marker string
}

// Remove removes what is ours, and each directory that is empty then. It returns the paths of what stays: all that is not ours, and directories that are mount points. That
// a directory is not there is no error.
func (t Tree) Remove() (stays []string, err error) {
	entries, err := os.ReadDir(t.Dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, below := range t.Below {
		below.Dir = filepath.Join(t.Dir, below.Dir)
		stay, err := below.Remove()
		stays, errs = append(stays, stay...), append(errs, err)
	}
	for _, entry := range entries {
		path := filepath.Join(t.Dir, entry.Name())
		switch {
		case entry.Name() == t.Marker || slices.ContainsFunc(t.Below, func(below Tree) bool { return below.Dir == entry.Name() }):
		case t.Ours != nil && t.Ours(t.Dir, entry):
			errs = append(errs, os.RemoveAll(path))
		default:
			stays = append(stays, path)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return stays, err
	}
	return t.removeSelf(stays)
}

// removeSelf removes the marker and the directory, when nothing stays in it.
func (t Tree) removeSelf(stays []string) ([]string, error) {
	if t.Marker != "" {
		if err := os.Remove(filepath.Join(t.Dir, t.Marker)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return stays, err
		}
	}
	if len(stays) > 0 {
		return stays, nil
	}
	err := os.Remove(t.Dir)
	if errors.Is(err, syscall.EBUSY) { // something is mounted there
		return []string{t.Dir}, nil
	}
	return nil, err
}
