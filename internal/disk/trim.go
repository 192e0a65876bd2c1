//go:build linux

package disk

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/tangle-network/microvm-runtime/internal/unix"
)

// ErrTrim is returned for a disk of which it is not known what is free.
var ErrTrim = errors.New("can't tell what is free")

// Where things are in an ext4, and what they mean (Documentation/filesystems/ext4).
const (
	superblockAt   = 1024
	superblockSize = 1024

	offBlocks     = 0x04 // of the superblock
	offFirstBlock = 0x14
	offLogBlock   = 0x18
	offPerGroup   = 0x20
	offState      = 0x3a
	offIncompat   = 0x60
	offROCompat   = 0x64
	offGroupSize  = 0xfe
	offBlocksHigh = 0x150

	offBitmap     = 0x00 // of a group's descriptor
	offGroupFlags = 0x12
	offBitmapHigh = 0x20

	stateClean  = 1
	stateErrors = 2

	incompatRecover = 0x4
	incompat64Bit   = 0x80
	// filetype, extents, 64bit, flex_bg, ea_inode, csum_seed, largedir, inline_data, encrypt, casefold: these change nothing of where the bitmaps are.
	incompatKnown  = 0x2 | 0x40 | incompat64Bit | 0x200 | 0x400 | 0x2000 | 0x4000 | 0x8000 | 0x10000 | 0x20000
	roBigalloc     = 0x200
	groupNoBitmap  = 0x2 // its bitmap was never written: none of its blocks was ever used
	smallGroupSize = 32
)

// TrimExt4 makes holes of the blocks that the ext4 in a file does not use, and returns how many bytes of disk that gave back. ErrTrim when the file system is another, was not
// unmounted, or has errors.
//
// The file may be a hostile guest's. What it says of its free blocks is believed: nothing but itself is lost when it lies.
func TrimExt4(ctx context.Context, path string) (freed int64, err error) {
	f, err := os.OpenFile(path, os.O_RDWR|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	e, err := openExt4(f)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	before, err := usedBytes(f)
	if err != nil {
		return 0, err
	}
	for group := range e.groups() {
		err := context.Cause(ctx)
		if err == nil {
			err = e.trimGroup(group)
		}
		if err != nil {
			return 0, fmt.Errorf("trim %s: %w", path, err)
		}
	}
	after, err := usedBytes(f)
	return max(0, before-after), err
}

func usedBytes(f *os.File) (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Sys().(*syscall.Stat_t).Blocks * 512, nil
}

// ext4 is what TrimExt4 knows of one.
type ext4 struct {
	file      *os.File
	blockSize int64
	first     int64 // block of the first group
	blocks    int64
	perGroup  int64
	groupSize int64 // of a descriptor
}

// openExt4 reads the superblock, and believes it only as far as it makes sense for the file.
func openExt4(f *os.File) (*ext4, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	sb := make([]byte, superblockSize)
	if _, err := f.ReadAt(sb, superblockAt); err != nil && err != io.EOF {
		return nil, err
	}
	word := func(at int) int64 { return int64(binary.LittleEndian.Uint32(sb[at:])) }
	half := func(at int) int64 { return int64(binary.LittleEndian.Uint16(sb[at:])) }
	incompat, logBlock := word(offIncompat), word(offLogBlock)
	switch {
	case !info.Mode().IsRegular() || string(sb[offMagic-superblockAt:][:len(magic)]) != magic:
		return nil, fmt.Errorf("%w: it is no ext4", ErrTrim)
	case incompat&incompatRecover != 0 || half(offState)&stateClean == 0:
		return nil, fmt.Errorf("%w: its ext4 was not unmounted", ErrTrim)
	case half(offState)&stateErrors != 0:
		return nil, fmt.Errorf("%w: its ext4 has errors", ErrTrim)
	case incompat&^incompatKnown != 0 || word(offROCompat)&roBigalloc != 0 || logBlock > 6:
		return nil, fmt.Errorf("%w: its ext4 has features that are not known", ErrTrim)
	}
	e := &ext4{file: f, blockSize: 1024 << logBlock, first: word(offFirstBlock), blocks: word(offBlocks), perGroup: word(offPerGroup), groupSize: smallGroupSize}
	if incompat&incompat64Bit != 0 {
		e.blocks |= word(offBlocksHigh) << 32
		e.groupSize = half(offGroupSize)
	}
	if e.perGroup != 8*e.blockSize || e.first > 1 || e.groupSize < smallGroupSize || e.groupSize > 1024 || e.blocks <= e.first || e.blocks > info.Size()/e.blockSize {
		return nil, fmt.Errorf("%w: its ext4 makes no sense", ErrTrim)
	}
	return e, nil
}

func (e *ext4) groups() int64 { return (e.blocks - e.first + e.perGroup - 1) / e.perGroup }

// trimGroup makes holes of a group's free blocks.
func (e *ext4) trimGroup(group int64) error {
	bitmap, err := e.bitmap(group)
	if err != nil || bitmap == nil {
		return err
	}
	begin := e.first + group*e.perGroup
	count := min(e.perGroup, e.blocks-begin)
	used := func(i int64) bool { return bitmap[i/8]>>(i%8)&1 != 0 }
	for at := int64(0); at < count; {
		end := at
		for end < count && !used(end) {
			end++
		}
		if err := e.punch(begin+at, begin+end); err != nil {
			return err
		}
		at = end + 1
	}
	return nil
}

// bitmap returns which blocks of a group are used, nil when that was never written.
func (e *ext4) bitmap(group int64) ([]byte, error) {
	descriptor := make([]byte, e.groupSize)
	if _, err := e.file.ReadAt(descriptor, (e.first+1)*e.blockSize+group*e.groupSize); err != nil {
		return nil, err
	}
	if binary.LittleEndian.Uint16(descriptor[offGroupFlags:])&groupNoBitmap != 0 {
		return nil, nil
	}
	block := int64(binary.LittleEndian.Uint32(descriptor[offBitmap:]))
	if e.groupSize >= offBitmapHigh+4 {
		block |= int64(binary.LittleEndian.Uint32(descriptor[offBitmapHigh:])) << 32
	}
	if block <= e.first || block >= e.blocks {
		return nil, fmt.Errorf("%w: the bitmap of group %d is outside of the disk", ErrTrim, group)
	}
	bitmap := make([]byte, e.blockSize)
	_, err := e.file.ReadAt(bitmap, block*e.blockSize)
	return bitmap, err
}

// punch makes a hole of blocks, unless they are one.
func (e *ext4) punch(from, to int64) error {
	if from == to {
		return nil
	}
	data, err := unix.NextData(e.file, from*e.blockSize)
	if errors.Is(err, syscall.ENXIO) || err == nil && data >= to*e.blockSize {
		return nil
	}
	if err != nil {
		return err
	}
	return unix.PunchHole(e.file, from*e.blockSize, (to-from)*e.blockSize)
}
