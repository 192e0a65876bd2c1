package kernel

import (
	"archive/tar"
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tangle-network/microvm-runtime/internal/testing/fakekernel"
)

const testRelease = "6.1.0-56-cloud-amd64"

// debOf writes a package into a directory of its own.
func debOf(t *testing.T, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "linux-image.deb")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// kernelPackage has two modules, of which one needs the other, and what is not to be taken.
func kernelPackage(modulesDir string) fakekernel.Package {
	p := fakekernel.KernelPackage(testRelease, modulesDir,
		fakekernel.Module{File: "drivers/virtio_blk.ko", Release: testRelease, Depends: "virtio-ring,ext4"},
		fakekernel.Module{File: "drivers/virtio-ring.ko.xz", Release: testRelease, Pack: fakekernel.XZ})
	p.Files = append(p.Files,
		fakekernel.File{Header: tar.Header{Name: "./" + modulesDir + "/" + testRelease + "/build", Typeflag: tar.TypeSymlink, Linkname: "/usr/src/linux"}},
		fakekernel.File{Header: tar.Header{Name: "./boot/vmlinuz-directory/", Typeflag: tar.TypeDir, Mode: 0o755}})
	p.Add("boot/efi/vmlinuz-other", []byte("odd"))
	p.Add("usr/share/doc/lib/modules/other/README", []byte("odd"))
	return p
}

func TestOpenDeb(t *testing.T) {
	for _, dir := range []string{"lib/modules", "usr/lib/modules"} {
		for _, form := range []string{"", ".gz", ".xz", ".zst"} {
			p := kernelPackage(dir)
			p.Form = form
			path := debOf(t, p.Bytes())
			d, err := OpenDeb(path)
			if err != nil {
				t.Errorf("%s, data.tar%s: %v", dir, form, err)
				continue
			}
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			vmlinux, err := Extract(d.Vmlinuz)
			if err != nil || !bytes.Equal(vmlinux, fakekernel.Vmlinux(testRelease)) || d.Release != testRelease || string(d.Config) != "CONFIG_EXT4_FS=y\n" {
				t.Errorf("%s, data.tar%s: %s, config %q, vmlinuz: %v", dir, form, d.Release, d.Config, err)
			}
			modules, err := d.Modules.Resolve("virtio_blk")
			if got := moduleNames(modules); err != nil || !slices.Equal(got, []string{"virtio_ring", "virtio_blk"}) || d.Modules.Release() != testRelease {
				t.Errorf("%s, data.tar%s: modules %q of %s, %v", dir, form, got, d.Modules.Release(), err)
			}
		}
	}
}

func moduleNames(modules []Module) []string {
	names := []string{}
	for _, m := range modules {
		names = append(names, m.Name)
	}
	return names
}

// TestDebUnpacks what OpenModules then opens.
func TestDebUnpacks(t *testing.T) {
	p := kernelPackage("usr/lib/modules")
	d, err := OpenDeb(debOf(t, p.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := d.Unpack(dir); err != nil {
		t.Fatal(err)
	}
	var names []string
	err = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if name, ok := strings.CutPrefix(path, dir+"/"); ok && !entry.IsDir() {
			names = append(names, name)
		}
		return err
	})
	tree := "lib/modules/" + testRelease
	want := []string{"config", tree + "/kernel/drivers/virtio-ring.ko.xz", tree + "/kernel/drivers/virtio_blk.ko", tree + "/modules.builtin", "vmlinuz"}
	if err != nil || !slices.Equal(names, want) {
		t.Errorf("%q, %v; want %q", names, err, want)
	}
	m, err := OpenModules(filepath.Join(dir, tree))
	if err != nil {
		t.Fatal(err)
	}
	modules, err := m.Resolve("virtio_blk")
	if got := moduleNames(modules); err != nil || !slices.Equal(got, []string{"virtio_ring", "virtio_blk"}) {
		t.Errorf("modules %q, %v", got, err)
	}
	if err := os.Symlink("/tmp", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	d.files["link/out"] = nil // no package can say that
	if err := d.Unpack(dir); err == nil {
		t.Error("it was written out of the directory")
	}
}

func TestDebOfPart(t *testing.T) {
	var image, modules fakekernel.Package
	image.Add("boot/vmlinuz-"+testRelease, []byte("MZ"))
	modules.Add("lib/modules/"+testRelease+"/kernel/a.ko", fakekernel.Module{Release: testRelease}.Content())
	d, err := OpenDeb(debOf(t, image.Bytes()))
	if err != nil || d.Release != testRelease || string(d.Vmlinuz) != "MZ" || d.Modules != nil || d.Config != nil {
		t.Errorf("image: %+v, %v", d, err)
	}
	d, err = OpenDeb(debOf(t, modules.Bytes()))
	if err != nil || d.Release != testRelease || d.Vmlinuz != nil || d.Modules == nil {
		t.Errorf("modules: %+v, %v", d, err)
	}
}

func TestOpenDebRefuses(t *testing.T) {
	whole, several, none, odd, escapes := kernelPackage("lib/modules"), kernelPackage("lib/modules"), fakekernel.Package{}, kernelPackage("lib/modules"), fakekernel.Package{}
	several.Add("boot/vmlinuz-6.12", []byte("MZ"))
	none.Add("usr/bin/true", []byte("\x7fELF"))
	odd.Form = ".lzma"
	escapes.Add("lib/modules/../../../../etc/passwd", []byte("x"))
	escapes.Add("boot/../../vmlinuz-1", []byte("x"))
	binary := fakekernel.Member{Name: "debian-binary", Content: []byte("2.0\n")}
	for name, content := range map[string][]byte{
		"nothing":                nil,
		"text":                   []byte("hello"),
		"an ELF file":            fakekernel.Vmlinux(testRelease),
		"an archive of nothing":  fakekernel.Ar(),
		"another archive":        fakekernel.Ar(fakekernel.Member{Name: "main.o", Content: []byte("x")}),
		"no data":                fakekernel.Ar(binary),
		"data that is no tar":    fakekernel.Ar(binary, fakekernel.Member{Name: "data.tar", Content: bytes.Repeat([]byte("x"), 4096)}),
		"data that is not xz":    fakekernel.Ar(binary, fakekernel.Member{Name: "data.tar.xz", Content: []byte("x")}),
		"data that is not gzip":  fakekernel.Ar(binary, fakekernel.Member{Name: "data.tar.gz", Content: []byte("x")}),
		"data that is not zstd":  fakekernel.Ar(binary, fakekernel.Member{Name: "data.tar.zst", Content: []byte("x")}),
		"a member without size":  bytes.Replace(fakekernel.Ar(binary), []byte("4         `"), []byte("-4        `"), 1),
		"a member without end":   bytes.Replace(fakekernel.Ar(binary), []byte("`\n"), []byte("``"), 1),
		"several kernels":        several.Bytes(),
		"no kernel":              none.Bytes(),
		"another compression":    odd.Bytes(),
		"names that lead out":    escapes.Bytes(),
		"a sum that is not true": spoiled(whole),
	} {
		if d, err := OpenDeb(debOf(t, content)); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %+v, %v; want ErrFormat", name, d, err)
		}
	}
	if _, err := OpenDeb(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

// spoiled returns the package with one bit of its files changed, which only the sum of the compression tells.
func spoiled(p fakekernel.Package) []byte {
	p.Form = ".xz"
	return bytes.Replace(p.Bytes(), []byte("CONFIG_EXT4_FS=y"), []byte("CONFIG_EXT4_FS=m"), 1)
}

// TestDebCut opens every beginning of a package.
func TestDebCut(t *testing.T) {
	for _, form := range []string{".gz", ".xz", ".zst", ""} {
		p := kernelPackage("lib/modules")
		p.Form = form
		whole := p.Bytes()
		end := len(whole)
		if whole[end-1] == '\n' {
			end-- // what makes the length even
		}
		for n := 0; n < end; n += 1 + n/97 {
			d := &Deb{files: map[string][]byte{}}
			if err := d.read(bytes.NewReader(whole[:n]), maxPackage, maxKept); !errors.Is(err, ErrFormat) {
				t.Errorf("data.tar%s: %d of %d bytes: %v, want ErrFormat", form, n, len(whole), err)
			}
		}
	}
}

// TestDebIsBounded unpacks no more than it is told, whatever a package holds.
func TestDebIsBounded(t *testing.T) {
	large, other := kernelPackage("lib/modules"), kernelPackage("lib/modules")
	large.Add("boot/config-"+testRelease, make([]byte, 1<<20))
	large.Form, other.Form = ".gz", ".gz"
	other.Add("usr/share/large", make([]byte, 1<<20))
	for _, c := range []struct {
		p          fakekernel.Package
		most, kept int64
		ok         bool
	}{{large, 2 << 20, 2 << 20, true}, {large, 2 << 20, 1 << 20, false}, {large, 1 << 20, 2 << 20, false}, {other, 2 << 20, 1 << 20, true}, {other, 1 << 20, 1 << 20, false}} {
		d := &Deb{files: map[string][]byte{}}
		if err := d.read(bytes.NewReader(c.p.Bytes()), c.most, c.kept); (err == nil) != c.ok || err != nil && !errors.Is(err, ErrFormat) {
			t.Errorf("%d files, at most %d bytes, %d kept: %v", len(c.p.Files), c.most, c.kept, err)
		}
	}
}

func FuzzOpenDeb(f *testing.F) {
	for _, form := range []string{"", ".gz", ".xz", ".zst"} {
		var p fakekernel.Package
		p.Add("boot/vmlinuz-6.1", []byte("MZ"))
		p.Form = form
		f.Add(p.Bytes())
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		d := &Deb{files: map[string][]byte{}}
		if err := d.read(bytes.NewReader(content), 1<<20, 1<<16); err != nil && !errors.Is(err, ErrFormat) {
			t.Errorf("%v, want ErrFormat", err)
		}
		for name := range d.files {
			if !fs.ValidPath(name) {
				t.Errorf("a file is called %q", name)
			}
		}
	})
}
