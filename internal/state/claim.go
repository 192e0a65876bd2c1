//go:build linux

package state

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/disk"
	"github.com/tangle-network/microvm-runtime/internal/flock"
	"github.com/tangle-network/microvm-runtime/internal/record"
)

// The markers by which a directory is told to be ours: without its marker only an empty one is taken.
const (
	versionFile = "version"    // of the state directory
	ownerFile   = "owner.json" // of the socket directory
)

// claimPatience bounds the wait for another process that claims the same directory, which takes it one flush of a disk.
const claimPatience = 10 * time.Second

// owner is the body of ownerFile.
type owner struct {
	StateDir string `json:"state_dir"`
}

// Claim makes the state directory at root, or finds that it is one, for who puts something into it without being a driver. Errors are Open's.
func Claim(root string) error { return (&Dir{root: root}).claimRoot() }

// claimRoot makes the state directory, or finds that it is one, of a version that this program knows.
func (d *Dir) claimRoot() error {
	path := filepath.Join(d.root, versionFile)
	nothing := func([]string, string) bool { return false }
	err := claim(d.root, versionFile, nothing, func() error { return record.Replace(path, []byte(strconv.Itoa(Version)+"\n"), true) })
	if err != nil {
		return err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	switch version, err := strconv.Atoi(strings.TrimSpace(string(text))); {
	case err != nil || version < 1:
		return fmt.Errorf("%w: %s says %.20q and no version: %s is no state directory (choose an empty one)", microvm.ErrInvalid, path, text, d.root)
	case version > Version:
		return fmt.Errorf("%w: %s is of version %d, this program reads up to %d", microvm.ErrIncompatible, d.root, version, Version)
	}
	return nil
}

// claimSockets makes the socket directory, or finds that it is this state directory's.
func (d *Dir) claimSockets() error {
	path := filepath.Join(d.sockets, ownerFile)
	// One without its marker is from before there were markers, or its oldest files were cleaned away.
	unmarked := func(all []string, name string) bool {
		return slices.Contains(all, runDir) && (name == runDir || ValidUID(name))
	}
	if err := claim(d.sockets, ownerFile, unmarked, func() error { return write(path, owner{StateDir: d.root}, true) }); err != nil {
		return err
	}
	var there owner
	if err := read(path, &there); err != nil {
		return err
	}
	if !samePlace(there.StateDir, d.root) {
		return fmt.Errorf("%w: %s is the socket directory of %s, not of %s (each needs one of its own)", microvm.ErrInvalid, d.sockets, there.StateDir, d.root)
	}
	return nil
}

// claim makes dir, or checks that it is ours: it has the marker, or nothing in it that is not harmless, and then it is marked. Of two processes one does that.
func claim(dir, marker string, harmless func(all []string, name string) bool, mark func() error) error {
	if err := private(dir); err != nil {
		return err
	}
	if _, err := os.Lstat(filepath.Join(dir, marker)); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), claimPatience)
	defer cancel()
	lock, err := flock.Dir(ctx, dir)
	if err != nil {
		return err
	}
	defer lock.Close()
	if _, err := os.Lstat(filepath.Join(dir, marker)); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	entries, err := lock.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range entries {
		// What an interrupted claim leaves, and what every fresh file system of some kinds has, is nobody's.
		if name != marker+record.NewSuffix && name != "lost+found" && !harmless(entries, name) {
			return fmt.Errorf("%w: %s has %q and no file %s: it is not ours (choose an empty directory, or one that is not there yet)", microvm.ErrInvalid, dir, name, marker)
		}
	}
	return mark()
}

// private makes dir, or checks that it is a directory of ours that nobody else can change. One that is there keeps its mode: what is made in it lets nobody in.
func private(dir string) error {
	if !filepath.IsAbs(dir) {
		return fmt.Errorf("%w: %s is no absolute path", microvm.ErrInvalid, dir)
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	if err := disk.MakeDir(dir); err != nil {
		return err
	}
	f, err := os.OpenFile(dir, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return fmt.Errorf("%w: %w", microvm.ErrInvalid, err)
	}
	defer f.Close()
	if err := record.Ours(f, 0o022); err != nil {
		return fmt.Errorf("%w: %s: %w", microvm.ErrInvalid, dir, err)
	}
	return nil
}

// samePlace says whether two paths lead to one place, also when it is not there: /var/run is another name of /run.
func samePlace(a, b string) bool { return a == b || resolved(a) == resolved(b) }

// resolved follows the symbolic links of the part of path that is there.
func resolved(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil || path == filepath.Dir(path) {
		return real
	}
	return filepath.Join(resolved(filepath.Dir(path)), filepath.Base(path))
}
