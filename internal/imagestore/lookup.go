//go:build linux

package imagestore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/disk"
)

// Entry is an image as it is found.
type Entry struct {
	Record
	References []string // Sorted, in the form that people write. Empty when no name means it.
	Path       string   // Of the base.
	InUse      bool     // The base has other names than the store's.
}

// Lookup returns the image of a store that a text means: a reference, such as "debian:12"; a manifest's digest, or twelve or more of its first digits; or the path of a base, which
// begins with "/", "./" or "../" and has no Config. It answers microvm.ErrNotFound, with what to do about it, or microvm.ErrInvalid.
func Lookup(dir, text string) (Entry, error) {
	if isPath(text) {
		return fromPath(text)
	}
	d := Dir(dir)
	references, err := d.references()
	if err != nil {
		return Entry{}, err
	}
	normalized, invalid := Normalize(text)
	if digest, ok := references[normalized]; ok && invalid == nil {
		return d.find(text, digest, references)
	}
	if _, digest, pinned := strings.Cut(normalized, "@"); pinned && invalid == nil { // by the digest of the manifest itself, whatever its repository is called
		return d.find(text, digest, references)
	}
	if idForm.MatchString(text) {
		return d.findID(text, references)
	}
	if invalid != nil {
		return Entry{}, invalid
	}
	return Entry{}, notFound(text)
}

func isPath(text string) bool {
	return strings.HasPrefix(text, "/") || strings.HasPrefix(text, "./") || strings.HasPrefix(text, "../")
}

func fromPath(path string) (Entry, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return Entry{}, fmt.Errorf("image %s: %w", path, microvm.ErrNotFound)
	case err != nil:
		return Entry{}, fmt.Errorf("image: %w", err)
	case !info.Mode().IsRegular():
		return Entry{}, fmt.Errorf("image %s: %w: no regular file", path, microvm.ErrInvalid)
	}
	path, err = filepath.Abs(path)
	return Entry{Path: path, Record: Record{Size: info.Size()}}, err
}

// List returns all images that can be read, newest first, and what is wrong with the others.
func (d Dir) List() ([]Entry, error) {
	references, err := d.references()
	if err != nil {
		return nil, err
	}
	dirs, err := os.ReadDir(d.join("images"))
	if err != nil {
		return nil, ignoreMissing(err)
	}
	var entries []Entry
	var errs []error
	for _, dir := range dirs {
		entry, err := d.read("sha256:"+dir.Name(), references)
		switch {
		case err == nil:
			entries = append(entries, entry)
		case !errors.Is(err, os.ErrNotExist): // removed meanwhile
			errs = append(errs, err)
		}
	}
	slices.SortStableFunc(entries, func(a, b Entry) int { return b.Created.Compare(a.Created) })
	return entries, errors.Join(errs...)
}

// Get returns the image with a manifest's digest, or microvm.ErrNotFound.
func (d Dir) Get(digest string) (Entry, error) {
	references, err := d.references()
	if err != nil {
		return Entry{}, err
	}
	return d.find(digest, digest, references)
}

// find returns the image that text means by its digest.
func (d Dir) find(text, digest string, references map[string]string) (Entry, error) {
	entry, err := d.read(digest, references)
	if errors.Is(err, os.ErrNotExist) {
		return Entry{}, notFound(text)
	}
	return entry, err
}

// findID returns the one image whose digest begins like id.
func (d Dir) findID(id string, references map[string]string) (Entry, error) {
	prefix := strings.TrimPrefix(id, "sha256:")
	dirs, err := os.ReadDir(d.join("images"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return Entry{}, err
	}
	var found []string
	for _, dir := range dirs {
		if strings.HasPrefix(dir.Name(), prefix) {
			found = append(found, "sha256:"+dir.Name())
		}
	}
	switch len(found) {
	case 0:
		return Entry{}, notFound(id)
	case 1:
		return d.find(id, found[0], references)
	}
	return Entry{}, bad(id, "several images begin so: "+strings.Join(found, ", "))
}

func (d Dir) read(digest string, references map[string]string) (Entry, error) {
	if !digestForm.MatchString(digest) {
		return Entry{}, fmt.Errorf("image %q: %w: no digest", digest, ErrDamaged)
	}
	e := Entry{Path: filepath.Join(d.image(digest), baseName)}
	if err := readRecord(filepath.Join(d.image(digest), recordName), &e.Record); err != nil {
		return Entry{}, err
	}
	info, err := os.Lstat(e.Path)
	if err != nil {
		return Entry{}, err
	}
	if e.Digest != digest || !info.Mode().IsRegular() || info.Size() != e.Size {
		return Entry{}, fmt.Errorf("image %s: %w: record and base don't fit (microvm image rm %s, and get it again)", digest, ErrDamaged, digest)
	}
	e.InUse = info.Sys().(*syscall.Stat_t).Nlink > 1
	for reference, of := range references {
		if of == digest {
			e.References = append(e.References, Familiar(reference))
		}
	}
	slices.Sort(e.References)
	return e, nil
}

// Link makes path another name of the base, or a copy where no link can be made: on another file system. From then on the base is path's too, whatever becomes of the
// image. It answers microvm.ErrNotFound when the image was removed since it was looked up.
func (e Entry) Link(ctx context.Context, path string) error {
	err := disk.LinkOrCopy(ctx, path, e.Path)
	if errors.Is(err, os.ErrNotExist) {
		if _, missing := os.Lstat(e.Path); errors.Is(missing, os.ErrNotExist) {
			return notFound(e.Digest)
		}
	}
	return err
}

func notFound(text string) error {
	return &microvm.OpError{Op: "find image " + text, Err: microvm.ErrNotFound, Hint: "microvm image pull gets it, microvm image ls shows what there is"}
}
