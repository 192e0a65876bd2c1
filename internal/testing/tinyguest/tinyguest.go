// Package tinyguest makes guest kernels of a few instructions, for tests and benchmarks of what a host does.
//
// There is only one type: a [Program] says what the guest does. [Kernel] makes a 64-bit ELF of it that Firecracker boots on x86_64, also where the host's
// KVM can't run an unmodified Linux.
package tinyguest

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
)

// Program says what a guest does.
type Program struct {
	Text  string // Written to the serial port first, byte by byte.
	After After  // What comes then.
}

// After is what a guest does once it has written its text.
type After int

const (
	// Halt stops the vCPU for ever; the machine goes on.
	Halt After = iota
	// Flood writes the text again, for ever.
	Flood
	// Reset resets the machine through the keyboard controller, as Linux does with reboot=k: Firecracker ends with status 0.
	Reset
	// Crash is a triple fault.
	Crash
	// Count counts for ever: each turn writes the number to one of CountPages pages in their order, each 4096th turn the next of the letters a to p to the serial port.
	Count
)

// CountPages is how many pages of 4 KiB Count writes to, from 32 MiB on.
const CountPages = 256

const (
	loadAddress = 16 << 20
	headerSize  = 64
	programSize = 56
	codeOffset  = 4096
)

// code returns the machine code, with the text behind it.
func (p Program) code() []byte {
	var tail []byte
	switch p.After {
	case Halt:
		tail = []byte{0xfa, 0xf4, 0xeb, 0xfd} // cli; hlt; jmp hlt
	case Flood:
		tail = []byte{0xeb, 0xeb} // jmp start
	case Reset:
		tail = []byte{0x66, 0xba, 0x64, 0x00, 0xb0, 0xfe, 0xee, 0xf4, 0xeb, 0xfd} // mov dx,0x64; mov al,0xfe; out dx,al; hlt; jmp hlt
	case Crash:
		tail = []byte{0x0f, 0x0b} // ud2, without a table of handlers
	case Count:
		tail = []byte{
			0x31, 0xdb, // xor ebx,ebx
			0xff, 0xc3, // turn: inc ebx
			0x89, 0xd8, 0x25, 0xff, 0, 0, 0, // mov eax,ebx; and eax,255
			0xc1, 0xe0, 0x0c, 0x05, 0, 0, 0, 2, // shl eax,12; add eax,32 MiB
			0x89, 0x18, // mov [rax],ebx
			0xf7, 0xc3, 0xff, 0x0f, 0, 0, // test ebx,4095
			0x75, 0xe5, // jnz turn
			0x89, 0xd8, 0xc1, 0xe8, 0x0c, // mov eax,ebx; shr eax,12
			0x24, 0x0f, 0x04, 'a', // and al,15; add al,'a'
			0xee,       // out dx,al
			0xeb, 0xd9, // jmp turn
		}
	}
	head := []byte{
		0x48, 0x8d, 0x35, 0, 0, 0, 0, // start: lea rsi,[rip+text]
		0x66, 0xba, 0xf8, 0x03, // mov dx,0x3f8
		0xac,       // next: lodsb
		0x84, 0xc0, // test al,al
		0x74, 0x03, // jz after
		0xee,       // out dx,al
		0xeb, 0xf8, // jmp next
	} // after:
	const leaEnd = 7
	binary.LittleEndian.PutUint32(head[3:], uint32(len(head)+len(tail)-leaEnd))
	return append(append(head, tail...), append([]byte(p.Text), 0)...)
}

// Kernel returns the program as an ELF executable that is loaded and entered at 16 MiB.
func Kernel(p Program) []byte {
	code := p.code()
	header := elf.Header64{
		Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: uint32(elf.EV_CURRENT), Entry: loadAddress,
		Phoff: headerSize, Ehsize: headerSize, Phentsize: programSize, Phnum: 1, Shentsize: 64,
	}
	copy(header.Ident[:], elf.ELFMAG)
	header.Ident[elf.EI_CLASS], header.Ident[elf.EI_DATA], header.Ident[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)
	segment := elf.Prog64{
		Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_X), Off: codeOffset, Vaddr: loadAddress, Paddr: loadAddress,
		Filesz: uint64(len(code)), Memsz: uint64(len(code)), Align: codeOffset,
	}
	var b bytes.Buffer
	binary.Write(&b, binary.LittleEndian, header)
	binary.Write(&b, binary.LittleEndian, segment)
	b.Write(make([]byte, codeOffset-b.Len()))
	b.Write(code)
	return b.Bytes()
}

// Write writes the kernel to a file.
func Write(path string, p Program) error { return os.WriteFile(path, Kernel(p), 0o644) }
