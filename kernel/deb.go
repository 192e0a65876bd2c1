package kernel

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// Bounds of a package, uncompressed, in bytes: of all that is in it, and of what is kept. The largest that distributions ship have 700 MB of modules.
const (
	maxPackage = 8 << 30
	maxKept    = 2 << 30
)

// Deb is what a Debian package has of a kernel. Some distributions put the image and its modules into packages of their own.
type Deb struct {
	Release string
	Vmlinuz []byte   // The image as it is shipped; see [Extract]. Nil where there is none.
	Config  []byte   // What the kernel was configured with. Nil where there is none.
	Modules *Modules // Nil where there are none.

	files map[string][]byte // by name where they are unpacked
}

// OpenDeb reads a package (deb(5)) into memory: /boot/vmlinuz-RELEASE, /boot/config-RELEASE, and the regular files below /lib/modules/RELEASE or
// /usr/lib/modules/RELEASE. Nothing of it is executed, and the file need not stay. ErrFormat when it is no package, or has several kernels or none.
func OpenDeb(file string) (*Deb, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	d := &Deb{files: map[string][]byte{}}
	if err := d.read(f, maxPackage, maxKept); err != nil {
		return nil, fmt.Errorf("package %s: %w", file, err)
	}
	d.Vmlinuz, d.Config = d.files["vmlinuz"], d.files["config"]
	modules := newModules(file + ":lib/modules/" + d.Release)
	for name, content := range d.files {
		if strings.HasPrefix(name, "lib/modules/") {
			d.Modules = modules
			modules.add(name, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil })
		}
	}
	modules.addBuiltin(d.files["lib/modules/"+d.Release+"/"+builtinList])
	return d, nil
}

// Unpack writes vmlinuz, config and lib/modules/RELEASE into a directory, as far as the package has them.
func (d *Deb) Unpack(dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, name := range slices.Sorted(maps.Keys(d.files)) {
		to := filepath.FromSlash(name)
		if err := root.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		if err := root.WriteFile(to, d.files[name], 0o644); err != nil {
			return err
		}
	}
	return nil
}

// read reads a package of at most so many bytes, of which so many may be kept.
func (d *Deb) read(r io.Reader, most, kept int64) error {
	data, form, err := dataMember(r)
	if err != nil {
		return err
	}
	unpacked, err := decompressor(form, data)
	if err != nil {
		return fmt.Errorf("%w: data.tar: %w", ErrFormat, err)
	}
	defer unpacked.Close()
	bounded := &io.LimitedReader{R: unpacked, N: most}
	err = d.readTar(tar.NewReader(bounded), &kept)
	if err == nil {
		_, err = io.Copy(io.Discard, bounded) // for the sums at its end
	}
	if err == nil {
		_, err = io.Copy(io.Discard, data)
	}
	if err == nil && data.N > 0 {
		err = io.ErrUnexpectedEOF
	}
	switch {
	case bounded.N <= 0:
		return fmt.Errorf("%w: data.tar is larger than %d bytes", ErrFormat, most)
	case err != nil:
		return fmt.Errorf("%w: data.tar: %w", ErrFormat, err)
	case d.Release == "":
		return fmt.Errorf("%w: neither a kernel nor modules are in it", ErrFormat)
	}
	return nil
}

func (d *Deb) readTar(archive *tar.Reader, kept *int64) error {
	for {
		header, err := archive.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if header.Typeflag != tar.TypeReg {
			continue
		}
		if err := d.take(header.Name, archive, kept); err != nil {
			return fmt.Errorf("%s: %w", header.Name, err)
		}
	}
}

// take keeps a file that is of a kernel, of which so many bytes more may be.
func (d *Deb) take(name string, content io.Reader, kept *int64) error {
	release, as := placeOf(path.Clean("/" + name))
	if release == "" {
		return nil
	}
	if d.Release != "" && d.Release != release {
		return fmt.Errorf("the package is of %s too", d.Release)
	}
	d.Release = release
	text, err := io.ReadAll(io.LimitReader(content, *kept+1))
	if err != nil {
		return err
	}
	if *kept -= int64(len(text)); *kept < 0 {
		return errors.New("its kernel is too large")
	}
	d.files[as] = text
	return nil
}

// placeOf says of which kernel a package's file is, and what it is called where it is unpacked. No release when it is of none.
func placeOf(name string) (release, as string) {
	if release, ok := strings.CutPrefix(name, "/boot/vmlinuz-"); ok && !strings.Contains(release, "/") {
		return release, "vmlinuz"
	}
	if release, ok := strings.CutPrefix(name, "/boot/config-"); ok && !strings.Contains(release, "/") {
		return release, "config"
	}
	if below, ok := strings.CutPrefix(strings.TrimPrefix(name, "/usr"), "/lib/modules/"); ok {
		if release, _, ok := strings.Cut(below, "/"); ok {
			return release, "lib/modules/" + below
		}
	}
	return "", ""
}
