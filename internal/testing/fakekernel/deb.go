package fakekernel

import (
	"archive/tar"
	"bytes"
	"fmt"
)

// Package is a Debian package (deb(5)).
type Package struct {
	Files []File
	Form  string // How the name of data.tar ends: "", ".gz", ".xz", ".zst", or what none is.
}

// File is a file of a package.
type File struct {
	tar.Header
	Content []byte
}

// KernelPackage returns a package of a kernel with its modules, which are in a directory "lib/modules" or "usr/lib/modules".
func KernelPackage(release, modulesDir string, modules ...Module) Package {
	var p Package
	p.Add("boot/vmlinuz-"+release, BzImage(release, WithSize(LZ4(Vmlinux(release)), len(Vmlinux(release)))))
	p.Add("boot/config-"+release, []byte("CONFIG_EXT4_FS=y\n"))
	p.Add("boot/System.map-"+release, []byte("ffffffffffffffff B nothing\n"))
	p.Add(modulesDir+"/"+release+"/modules.builtin", []byte("kernel/fs/ext4/ext4.ko\n"))
	for _, m := range modules {
		p.Add(modulesDir+"/"+release+"/kernel/"+m.File, m.Content())
	}
	return p
}

// Add adds a regular file.
func (p *Package) Add(name string, content []byte) {
	p.Files = append(p.Files, File{tar.Header{Name: "./" + name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(content))}, content})
}

// Tar returns data.tar, unpacked.
func (p *Package) Tar() []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, file := range p.Files {
		err := w.WriteHeader(&file.Header)
		if err == nil {
			_, err = w.Write(file.Content)
		}
		if err != nil {
			panic(err) // the test's package can't be said
		}
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// Bytes returns the package.
func (p *Package) Bytes() []byte {
	data := p.Tar()
	if pack := map[string]func([]byte) []byte{".gz": Gzip, ".xz": XZ, ".zst": Zstd}[p.Form]; pack != nil {
		data = pack(data)
	}
	return Ar(Member{"debian-binary", []byte("2.0\n")}, Member{"control.tar.xz", XZ([]byte("odd"))}, Member{"_future", []byte("odd")}, Member{"data.tar" + p.Form, data})
}

// Member is a file in an archive of ar(1).
type Member struct {
	Name    string
	Content []byte
}

// Ar returns an archive of members.
func Ar(members ...Member) []byte {
	b := []byte("!<arch>\n")
	for _, m := range members {
		b = fmt.Appendf(b, "%-16s%-12d%-6d%-6d%-8s%-10d`\n", m.Name, 0, 0, 0, "100644", len(m.Content))
		b = append(b, m.Content...)
		b = append(b, "\n"[:len(m.Content)&1]...)
	}
	return b
}
