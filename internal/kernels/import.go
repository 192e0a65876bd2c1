//go:build linux

package kernels

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/kernel"
)

// maxImage bounds what is read as a kernel, in bytes.
const maxImage = 1 << 30

// Source is what a kernel is made of.
type Source struct {
	Image   string // Path of a vmlinux, a vmlinuz, or a Debian package that has one.
	Modules string // Path of lib/modules/RELEASE. Optional: the package's, else where distributions have it, seen from Image.
	Config  string // Path of the configuration. Optional: the package's, else beside Image as config or config-RELEASE, else what is built in.
}

// parts are a kernel, before it is written down.
type parts struct {
	image   []byte
	config  []byte // nil where it is not known
	release string
	modules string      // directory; "" where there are none, or they are the package's
	deb     *kernel.Deb // nil where it is no package
}

// Import prepares a kernel and keeps it under a name, by default its release: microvm.ErrExists when that is taken, microvm.ErrInvalid for what is no kernel, or modules of another.
func (d Dir) Import(ctx context.Context, name string, s Source) (Kernel, error) {
	p, err := s.open()
	if err != nil {
		return Kernel{}, err
	}
	if name == "" {
		name = p.release
	}
	if err := microvm.ValidateName(name); err != nil {
		return Kernel{}, fmt.Errorf("%w (give the kernel a name)", err)
	}
	place := filepath.Join(string(d), name)
	if _, err := os.Lstat(place); err == nil {
		return Kernel{}, fmt.Errorf("kernel %s: %w (remove it, or choose another name)", name, microvm.ErrExists)
	}
	if err := os.Mkdir(string(d), 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return Kernel{}, err
	}
	temp, end, err := d.begin(ctx)
	if err != nil {
		return Kernel{}, err
	}
	defer end()
	if err := p.write(ctx, temp); err != nil {
		return Kernel{}, err
	}
	if err := os.Rename(temp, place); errors.Is(err, os.ErrExist) { // another was faster
		return Kernel{}, fmt.Errorf("kernel %s: %w", name, microvm.ErrExists)
	} else if err != nil {
		return Kernel{}, err
	}
	return d.Get(name)
}

// open reads the kernel and finds what belongs to it.
func (s Source) open() (*parts, error) {
	packed, err := readBounded(s.Image)
	if err != nil {
		return nil, err
	}
	p := &parts{}
	if bytes.HasPrefix(packed, []byte("!<arch>\n")) {
		if p.deb, err = kernel.OpenDeb(s.Image); err == nil && p.deb.Vmlinuz == nil {
			err = fmt.Errorf("%s has modules of %s, and no kernel", s.Image, p.deb.Release)
		}
		if err != nil {
			return nil, invalid(err)
		}
		packed, p.config = p.deb.Vmlinuz, p.deb.Config
	}
	if p.image, err = kernel.Extract(packed); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", microvm.ErrInvalid, s.Image, err)
	}
	if err := p.findRelease(s.Image); err != nil {
		return nil, err
	}
	if err := p.findConfig(s); err != nil {
		return nil, err
	}
	return p, p.findModules(s)
}

func (p *parts) findRelease(path string) (err error) {
	if p.deb != nil {
		p.release = p.deb.Release
		return nil
	}
	p.release, err = kernel.Release(path)
	if errors.Is(err, kernel.ErrFormat) { // a vmlinuz may not say it, and what is in it may
		return nil
	}
	return err
}

// findConfig looks where distributions have it. That there is none is no error.
func (p *parts) findConfig(s Source) (err error) {
	if s.Config != "" {
		p.config, err = readBounded(s.Config)
		return err
	}
	for _, name := range []string{configFile, configFile + "-" + p.release} {
		if p.config != nil {
			return nil
		}
		if text, err := readBounded(filepath.Join(filepath.Dir(s.Image), name)); err == nil {
			p.config = text
		}
	}
	if p.config == nil {
		p.config, _ = kernel.Config(p.image)
	}
	return nil
}

// findModules looks where distributions have them: lib/modules/RELEASE beside the image, or beside the directory that it is in, as /boot is beside /lib.
func (p *parts) findModules(s Source) error {
	p.modules = s.Modules
	if p.modules == "" && p.deb == nil && p.release != "" {
		beside := filepath.Dir(s.Image)
		for _, root := range []string{beside, filepath.Dir(beside)} {
			if dir := filepath.Join(root, modulesDir, p.release); isDir(dir) && p.modules == "" {
				p.modules = dir
			}
		}
	}
	if p.modules == "" {
		return nil
	}
	tree, err := kernel.OpenModules(p.modules)
	if err != nil {
		return invalid(err)
	}
	if p.release != "" && tree.Release() != p.release {
		return fmt.Errorf("%w: %w: %s is Linux %s, and %s has modules of %s", microvm.ErrInvalid, kernel.ErrVermagic, s.Image, p.release, p.modules, tree.Release())
	}
	return nil
}

// write writes the kernel into a directory.
func (p *parts) write(ctx context.Context, dir string) error {
	if p.deb != nil {
		if err := p.deb.Unpack(dir); err != nil {
			return err
		}
	}
	if err := writeSynced(filepath.Join(dir, imageFile), p.image); err != nil {
		return err
	}
	if p.config != nil {
		if err := os.WriteFile(filepath.Join(dir, configFile), p.config, 0o644); err != nil {
			return err
		}
	}
	if p.modules == "" {
		return nil
	}
	return copyTree(ctx, filepath.Join(dir, modulesDir, filepath.Base(p.modules)), p.modules)
}

// copyTree copies the regular files of a tree. The links among modules lead to what a kernel was built of.
func copyTree(ctx context.Context, to, from string) error {
	return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err == nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			return err
		}
		below, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		switch {
		case entry.IsDir():
			return os.MkdirAll(filepath.Join(to, below), 0o755)
		case entry.Type().IsRegular():
			return copyFile(filepath.Join(to, below), path)
		}
		return nil
	})
}

func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

func writeSynced(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, invalid(err)
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, maxImage+1))
	if err == nil && len(content) > maxImage {
		err = fmt.Errorf("%s is larger than %d bytes", path, maxImage)
	}
	if err != nil {
		return nil, invalid(err)
	}
	return content, nil
}

func invalid(err error) error { return fmt.Errorf("%w: %w", microvm.ErrInvalid, err) }

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// Check says what a kernel in a file lacks, or one that has the file for its configuration.
func Check(path string) ([]kernel.Finding, error) {
	text, err := readBounded(path)
	if err != nil {
		return nil, err
	}
	if !bytes.Contains(text[:min(len(text), maxHead)], []byte("CONFIG_")) || bytes.IndexByte(text, 0) >= 0 {
		p, err := Source{Image: path}.open()
		if err != nil {
			return nil, err
		}
		if p.config == nil {
			return nil, fmt.Errorf("%w: the configuration of %s is not known (check the file %s-%s of its package)", microvm.ErrInvalid, path, configFile, p.release)
		}
		text = p.config
	}
	return kernel.Check(text), nil
}

// maxHead is how far into a configuration the first option may be, in bytes.
const maxHead = 64 << 10
