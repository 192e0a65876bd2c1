package image

import (
	"encoding/binary"
	"errors"
	"io"
)

const blockSize = 4096 // of the converter

// fillBitmaps sets the bits of each group's bitmap of inodes for which there are no inodes, as mke2fs does and the converter does not: e2fsck finds fault with it
// (fs/ext4/ext4.h: struct ext4_super_block, ext4_group_desc).
func fillBitmaps(f interface {
	io.ReaderAt
	io.WriterAt
}) error {
	super := make([]byte, 1024)
	if _, err := f.ReadAt(super, 1024); err != nil {
		return err
	}
	blocks, perGroup, inodes := binary.LittleEndian.Uint32(super[0x4:]), binary.LittleEndian.Uint32(super[0x20:]), binary.LittleEndian.Uint32(super[0x28:])
	if binary.LittleEndian.Uint16(super[0x38:]) != 0xef53 || perGroup == 0 || inodes%8 != 0 || inodes > 8*blockSize {
		return errors.New("the converter made no ext4")
	}
	const descriptorSize = 32
	descriptors := make([]byte, (blocks+perGroup-1)/perGroup*descriptorSize)
	if _, err := f.ReadAt(descriptors, blockSize); err != nil {
		return err
	}
	rest := make([]byte, blockSize-inodes/8)
	for i := range rest {
		rest[i] = 0xff
	}
	for ; len(descriptors) > 0; descriptors = descriptors[descriptorSize:] {
		bitmap := binary.LittleEndian.Uint32(descriptors[4:])
		if _, err := f.WriteAt(rest, int64(bitmap)*blockSize+int64(inodes/8)); err != nil {
			return err
		}
	}
	return nil
}
