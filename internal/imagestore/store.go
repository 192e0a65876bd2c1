//go:build linux

package imagestore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/tangle-network/microvm-runtime/internal/disk"
	"github.com/tangle-network/microvm-runtime/internal/tidy"
)

const (
	recordName     = "image.json"
	baseName       = "base.ext4"
	referencesName = "references.json"
	newSuffix      = ".new"
)

// Dir is the directory of a store. Any number of processes may use it at once. It need not exist to be read.
type Dir string

// parts are the directories in it.
var parts = []string{"images", "building", "blobs", "locks"}

// Make makes the store's directories where they are missing.
func (d Dir) Make() error {
	for _, sub := range parts {
		if err := os.MkdirAll(d.join(sub), 0o700); err != nil {
			return fmt.Errorf("image store: %w", err)
		}
	}
	return nil
}

// Tree says what is ours in the directory.
func Tree(dir string) tidy.Tree {
	t := tidy.Tree{Dir: dir, Ours: func(_ string, entry fs.DirEntry) bool {
		return strings.TrimSuffix(entry.Name(), newSuffix) == referencesName
	}}
	for _, sub := range parts {
		t.Below = append(t.Below, tidy.Tree{Dir: sub, Ours: func(_ string, entry fs.DirEntry) bool { return oursForm.MatchString(entry.Name()) }})
	}
	return t
}

// oursForm are the names of what is in those directories: digests, spools, and the lock of the references.
var oursForm = regexp.MustCompile(`^((sha256-|sha512-)?[0-9a-f]{64,128}(\.part)?|spool-[0-9]+|references)$`)

func (d Dir) join(names ...string) string {
	return filepath.Join(append([]string{string(d)}, names...)...)
}

// image returns the directory of an image.
func (d Dir) image(digest string) string { return d.join("images", hex(digest)) }

// Base returns where the base of an image that is being built belongs.
func (d Dir) Base(digest string) string { return d.join("building", hex(digest), baseName) }

// Blobs returns the directory of downloaded layers.
func (d Dir) Blobs() string { return d.join("blobs") }

func hex(digest string) string { return strings.TrimPrefix(digest, "sha256:") }

// Build makes an empty place for an image that is being built, see Base. The caller holds the digest's lock.
func (d Dir) Build(digest string) error {
	if err := d.Abandon(digest); err != nil {
		return err
	}
	return os.Mkdir(filepath.Dir(d.Base(digest)), 0o700)
}

// Abandon removes what there is of an image that is being built. The caller holds the digest's lock.
func (d Dir) Abandon(digest string) error { return os.RemoveAll(filepath.Dir(d.Base(digest))) }

// Commit makes an image of what was built. When it returns, the image survives power loss. The caller holds the digest's lock, and the base is durable.
func (d Dir) Commit(r Record) error {
	building := filepath.Dir(d.Base(r.Digest))
	if err := writeRecord(filepath.Join(building, recordName), r); err != nil {
		return err
	}
	if err := os.Rename(building, d.image(r.Digest)); err != nil {
		return err
	}
	return disk.SyncDir(d.join("images"))
}

// Drop removes an image, and no name. The caller holds the digest's lock.
func (d Dir) Drop(digest string) error {
	if err := d.Abandon(digest); err != nil {
		return err
	}
	building := filepath.Dir(d.Base(digest))
	if err := os.Rename(d.image(digest), building); err != nil {
		return ignoreMissing(err)
	}
	return errors.Join(os.RemoveAll(building), disk.SyncDir(d.join("images")))
}

// Leftovers returns the digests of images whose building began and did not end. Some may still go on: their locks tell.
func (d Dir) Leftovers() ([]string, error) {
	dirs, err := os.ReadDir(d.join("building"))
	digests := make([]string, 0, len(dirs))
	for _, dir := range dirs {
		digests = append(digests, "sha256:"+dir.Name())
	}
	return digests, ignoreMissing(err)
}

// references are the names, in full, and the digests that they mean.
func (d Dir) references() (map[string]string, error) {
	m := map[string]string{}
	err := readRecord(d.join(referencesName), &m)
	return m, ignoreMissing(err)
}

// Name makes references, which are in full, mean an image, whatever they meant before. The caller holds the digest's lock, so that the image stays.
func (d Dir) Name(ctx context.Context, digest string, references ...string) error {
	return d.change(ctx, func(m map[string]string) bool {
		changed := false
		for _, reference := range references {
			changed = changed || m[reference] != digest
			m[reference] = digest
		}
		return changed
	})
}

// Unname takes a reference, which is in full, from whatever it means.
func (d Dir) Unname(ctx context.Context, reference string) error {
	return d.change(ctx, func(m map[string]string) bool {
		_, had := m[reference]
		delete(m, reference)
		return had
	})
}

// UnnameAll takes all references from an image.
func (d Dir) UnnameAll(ctx context.Context, digest string) error {
	return d.change(ctx, func(m map[string]string) bool {
		before := len(m)
		for reference, of := range m {
			if of == digest {
				delete(m, reference)
			}
		}
		return len(m) != before
	})
}

func (d Dir) change(ctx context.Context, edit func(map[string]string) bool) error {
	unlock, err := d.Lock(ctx, "references")
	if err != nil {
		return err
	}
	defer unlock()
	m, err := d.references()
	if err != nil {
		return err
	}
	switch {
	case !edit(m):
		return nil
	case len(m) == 0:
		return os.Remove(d.join(referencesName))
	}
	return writeRecord(d.join(referencesName), m)
}
