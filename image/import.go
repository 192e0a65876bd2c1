//go:build linux

package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/flatten"
	"github.com/tangle-network/microvm-runtime/internal/imagestore"
)

// Format is what Import reads.
type Format string

// The formats of Import.
const (
	FormatOCI       Format = "oci"    // An OCI image layout: a directory, or a tar of one.
	FormatDocker    Format = "docker" // What docker save wrote: a tar, or a directory that one was unpacked to.
	FormatTar       Format = "tar"    // A root file system in a tar, such as docker export writes. Plain, or compressed by gzip or zstd; so may the other tars be.
	FormatDirectory Format = "dir"    // A root file system in a directory.
)

// ImportOptions are the options of [Store.Import]. Nil, or the zero value, is the default.
type ImportOptions struct {
	// Format is what the source is. Optional: what it looks like.
	Format Format
	// Select is the name or tag of one image where the source has several. Optional where it has one.
	Select string
	// Platform is such as "linux/arm64" or "linux/arm/v7". Optional: linux and this program's architecture. A root file system is taken to be for it.
	Platform string
	// Config is the configuration of a root file system, which has none of its own. Optional: empty.
	Config *Config
	// Limits bound what the image may come to. Optional.
	Limits Limits
	// Progress is told how far it is, one call at a time; it must not be slow. Optional.
	Progress func(Progress)
}

// Import makes an image of a file or directory and makes a name mean it. An empty name keeps the names that the source has for it. A source that is no regular file, such as a pipe, is
// copied first. See [Store.Pull] for what it returns.
func (s *Store) Import(ctx context.Context, path, name string, options *ImportOptions) (Image, error) {
	if options == nil {
		options = &ImportOptions{}
	}
	i := &importer{store: s, ctx: ctx, path: path, options: options, limits: options.Limits.resolve(), report: newReporter(options.Progress)}
	image, err := i.run(name)
	if err = errors.Join(err, i.close()); err != nil {
		return Image{}, fmt.Errorf("import %s: %w", path, explain(err))
	}
	return image, nil
}

// importer is one call of Import.
type importer struct {
	store    *Store
	ctx      context.Context
	path     string
	options  *ImportOptions
	limits   flatten.Limits
	report   *reporter
	platform v1.Platform
	closers  []io.Closer
}

func (i *importer) close() (err error) {
	for _, c := range i.closers {
		err = errors.Join(err, c.Close())
	}
	return err
}

func (i *importer) run(name string) (_ Image, err error) {
	if i.platform, err = platformOf(i.options.Platform); err != nil {
		return Image{}, err
	}
	var names []string
	if name != "" {
		normalized, err := imagestore.Normalize(name)
		if err == nil && strings.Contains(normalized, "@") {
			err = &microvm.FieldError{Field: "image reference", Value: name, Reason: "a digest can't be given, it comes of the content"}
		}
		if err != nil {
			return Image{}, err
		}
		names = append(names, normalized)
	}
	if err := i.store.dir.Make(); err != nil {
		return Image{}, err
	}
	r, own, err := i.recipe()
	if err != nil {
		return Image{}, err
	}
	if len(names) == 0 {
		names = own
	}
	if len(names) == 0 {
		return Image{}, &microvm.FieldError{Field: "image reference", Value: name, Reason: "the source has no name for it: give one"}
	}
	return i.store.make(i.ctx, r, names, i.limits, i.report)
}

// recipe finds out what the source is. It also returns the source's own names for the image.
func (i *importer) recipe() (recipe, []string, error) {
	info, err := os.Stat(i.path)
	if err != nil {
		return recipe{}, nil, fmt.Errorf("%w: %w", microvm.ErrInvalid, err)
	}
	if info.IsDir() {
		return i.directory()
	}
	return i.archive(info)
}

func (i *importer) directory() (recipe, []string, error) {
	root, err := os.OpenRoot(i.path)
	if err != nil {
		return recipe{}, nil, err
	}
	i.closers = append(i.closers, root)
	files := rootFiles{root}
	format := i.options.Format
	if format == "" {
		format = looksLike(files, FormatDirectory)
	}
	switch format {
	case FormatDirectory:
		r, err := i.fromDirectory()
		return r, nil, err
	case FormatTar:
		return recipe{}, nil, i.wrongFormat("a directory")
	}
	return i.fromFiles(format, files)
}

func (i *importer) wrongFormat(is string) error {
	return &microvm.FieldError{Field: "Format", Value: string(i.options.Format), Reason: i.path + " is " + is}
}

// fromFiles makes a recipe of a layout's or an archive's members.
func (i *importer) fromFiles(format Format, files files) (recipe, []string, error) {
	if i.options.Config != nil {
		return recipe{}, nil, &microvm.FieldError{Field: "Config", Value: "", Reason: "the image has a configuration of its own"}
	}
	switch format {
	case FormatOCI:
		return fromLayout(i.ctx, files, i.options.Select, i.platform, i.limits)
	case FormatDocker:
		return fromSaved(files, i.options.Select, i.platform, i.limits)
	}
	return recipe{}, nil, &microvm.FieldError{Field: "Format", Value: string(format), Reason: "must be oci, docker, tar or dir"}
}

// fromDirectory makes a tar of the directory first: what it holds has a digest only so, and can't change any more.
func (i *importer) fromDirectory() (recipe, error) {
	f, sum, size, err := i.spool(func(w io.Writer) error { return writeTar(w, i.path) })
	if err != nil {
		return recipe{}, err
	}
	return i.fromRootfs(blob{ReaderAt: f, size: size}, sum, size)
}

// archive makes a recipe of a tar.
func (i *importer) archive(info os.FileInfo) (recipe, []string, error) {
	f, err := os.Open(i.path)
	if err != nil {
		return recipe{}, nil, fmt.Errorf("%w: %w", microvm.ErrInvalid, err)
	}
	i.closers = append(i.closers, f)
	volatile := true
	if !info.Mode().IsRegular() {
		volatile = false
		if f, _, _, err = i.spool(func(w io.Writer) error { _, err := io.Copy(w, f); return err }); err != nil {
			return recipe{}, nil, err
		}
	}
	scanned, err := i.scan(f)
	if err != nil {
		return recipe{}, nil, err
	}
	format := i.options.Format
	if format == "" {
		format = scanned.format
	}
	switch format {
	case FormatDirectory:
		return recipe{}, nil, i.wrongFormat("no directory")
	case FormatTar:
		r, err := i.fromRootfs(blob{ReaderAt: f, size: scanned.fileSize, volatile: volatile}, scanned.sum, scanned.size)
		return r, nil, err
	}
	if scanned.compressed { // its members have to be read more than once
		compressed := f
		volatile = false
		if f, _, _, err = i.spool(func(w io.Writer) error { return i.expand(w, compressed) }); err != nil {
			return recipe{}, nil, err
		}
	}
	files, err := indexTar(f, volatile)
	if err != nil {
		return recipe{}, nil, err
	}
	return i.fromFiles(format, files)
}

func (i *importer) expand(w io.Writer, f *os.File) error {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	plain, _, err := flatten.Decompress(f)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	defer plain.Close()
	_, err = io.Copy(w, plain)
	return err
}

// spool keeps what is written in a file that has no name, so that nothing stays of it whatever happens. It returns its sha256, as a digest, and its size.
func (i *importer) spool(write func(io.Writer) error) (_ *os.File, sum string, size int64, err error) {
	f, err := os.CreateTemp(filepath.Join(i.store.dir.Blobs()), "spool-*")
	if err != nil {
		return nil, "", 0, err
	}
	i.closers = append(i.closers, f)
	if err := os.Remove(f.Name()); err != nil && !errors.Is(err, os.ErrNotExist) { // a prune may have been faster
		return nil, "", 0, err
	}
	reading := i.report.stage(StageRead, "", 0)
	m := newMeter(i.ctx, i.limits.Bytes, reading.add)
	if err := write(io.MultiWriter(f, m)); err != nil {
		return nil, "", 0, err
	}
	reading.end()
	_, err = f.Seek(0, io.SeekStart)
	return f, m.sum(), m.size, err
}
