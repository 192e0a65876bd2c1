package fakekernel

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Module is a module that says what it depends on and does nothing.
type Module struct {
	File    string // Below lib/modules/RELEASE/kernel, such as "drivers/block/virtio_blk.ko".
	Release string // Of the kernel that it was built with.
	Depends string // Names with commas between.
	Pack    func([]byte) []byte
}

// Content returns the file's bytes: an ELF file, packed where Pack says how.
func (m Module) Content() []byte {
	content := object(fmt.Sprintf("license=GPL\x00depends=%s\x00vermagic=%s SMP preempt mod_unload modversions \x00", m.Depends, m.Release))
	if m.Pack != nil {
		return m.Pack(content)
	}
	return content
}

// object returns a relocatable ELF file with a section .modinfo.
func object(modinfo string) []byte {
	const headerSize, sectionSize = 64, 64
	names := "\x00.modinfo\x00.shstrtab\x00"
	header := elf.Header64{Type: uint16(elf.ET_REL), Machine: uint16(elf.EM_X86_64), Version: uint32(elf.EV_CURRENT), Shoff: headerSize,
		Ehsize: headerSize, Shentsize: sectionSize, Shnum: 3, Shstrndx: 2}
	copy(header.Ident[:], elf.ELFMAG)
	header.Ident[elf.EI_CLASS], header.Ident[elf.EI_DATA], header.Ident[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)
	text := uint64(headerSize + 3*sectionSize)
	sections := []elf.Section64{
		{},
		{Name: 1, Type: uint32(elf.SHT_PROGBITS), Flags: uint64(elf.SHF_ALLOC), Off: text, Size: uint64(len(modinfo)), Addralign: 1},
		{Name: uint32(strings.Index(names, ".shstrtab")), Type: uint32(elf.SHT_STRTAB), Off: text + uint64(len(modinfo)), Size: uint64(len(names)), Addralign: 1},
	}
	var b bytes.Buffer
	binary.Write(&b, binary.LittleEndian, header)
	binary.Write(&b, binary.LittleEndian, sections)
	b.WriteString(modinfo + names)
	return b.Bytes()
}

// WriteModules makes lib/modules/RELEASE in a directory, with modules and the list of those that are built in, and returns its path.
func WriteModules(dir, release string, builtin []string, modules ...Module) (string, error) {
	tree := filepath.Join(dir, "lib", "modules", release)
	for _, m := range modules {
		path := filepath.Join(tree, "kernel", m.File)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return "", err
		}
		if err := os.WriteFile(path, m.Content(), 0o644); err != nil {
			return "", err
		}
	}
	if err := os.MkdirAll(tree, 0o755); err != nil {
		return "", err
	}
	var list strings.Builder
	for _, name := range builtin {
		fmt.Fprintf(&list, "kernel/%s.ko\n", name)
	}
	return tree, os.WriteFile(filepath.Join(tree, "modules.builtin"), []byte(list.String()), 0o644)
}
