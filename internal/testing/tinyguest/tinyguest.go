// Package tinyguest makes guest kernels of a few instructions, for tests and benchmarks of what a host does.
//
// There are only two types: a [Program] says what the guest does, and a [Read] what memory it reads meanwhile. [Kernel] makes a 64-bit ELF of it that Firecracker boots on x86_64, also where the host's
// KVM can't run an unmodified Linux.
package tinyguest

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"math/bits"
	"os"
)

// Program says what a guest does.
type Program struct {
	Text  string // Written to the serial port first, byte by byte.
	Read  *Read  // What memory is read then. Optional.
	After After  // What comes then.
}

// Read says what memory a guest reads, all of it below 1 GiB. It waits until the 8 bytes at Flag are not zero, and writes a line with the Sum of what it has read.
type Read struct {
	Flag        uint64 // A physical address, as From is.
	From        uint64
	Count, Step uint32 // So many numbers of 8 bytes, so many bytes apart.
}

// Sum returns what the guest writes of memory that begins with From, as the text that it is.
func (r Read) Sum(memory []byte) string {
	var sum uint64
	for n := range int(r.Count) {
		sum = bits.RotateLeft64(sum, 1) + binary.LittleEndian.Uint64(memory[n*int(r.Step):])
	}
	return fmt.Sprintf("%016x", sum)
}

// code waits, adds up, and writes the sum.
func (r Read) code() []byte {
	b := binary.LittleEndian.AppendUint64([]byte{0x48, 0xbb}, r.Flag)         // mov rbx,Flag
	b = append(b, 0x48, 0x83, 0x3b, 0, 0x74, 0xfa)                            // wait: cmp qword [rbx],0; je wait
	b = binary.LittleEndian.AppendUint64(append(b, 0x48, 0xbf), r.From)       // mov rdi,From
	b = binary.LittleEndian.AppendUint32(append(b, 0xb9), r.Count)            // mov ecx,Count
	b = append(b, 0x4d, 0x31, 0xc0)                                           // xor r8,r8
	b = append(b, 0x49, 0xd1, 0xc0, 0x4c, 0x03, 0x07)                         // add: rol r8,1; add r8,[rdi]
	b = binary.LittleEndian.AppendUint32(append(b, 0x48, 0x81, 0xc7), r.Step) // add rdi,Step
	b = append(b, 0xff, 0xc9, 0x75, 0xef)                                     // dec ecx; jnz add
	return append(b,
		0x66, 0xba, 0xf8, 0x03, // mov dx,0x3f8
		0xb9, 16, 0, 0, 0, // mov ecx,16
		0x49, 0xc1, 0xc0, 4, // digit: rol r8,4
		0x44, 0x88, 0xc0, // mov al,r8b
		0x24, 0x0f, 0x04, '0', // and al,15; add al,'0'
		0x3c, '9', 0x76, 2, // cmp al,'9'; jbe write
		0x04, 'a'-'9'-1, // add al,'a'-'9'-1
		0xee,                   // write: out dx,al
		0xff, 0xc9, 0x75, 0xea, // dec ecx; jnz digit
		0xb0, '\n', 0xee, // mov al,10; out dx,al
	)
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
		tail = []byte{0xeb, 0xeb} // jmp start; without Read
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
	if p.Read != nil {
		tail = append(p.Read.code(), tail...)
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
