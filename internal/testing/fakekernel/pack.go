package fakekernel

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"hash/crc32"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// Gzip packs content.
func Gzip(content []byte) []byte {
	var b bytes.Buffer
	return written(&b, gzip.NewWriter(&b), content)
}

// Zstd packs content.
func Zstd(content []byte) []byte {
	var b bytes.Buffer
	w, err := zstd.NewWriter(&b)
	if err != nil {
		panic(err) // its options are wrong
	}
	return written(&b, w, content)
}

// LZ4 packs content into a legacy frame.
func LZ4(content []byte) []byte {
	var b bytes.Buffer
	w := lz4.NewWriter(&b)
	if err := w.Apply(lz4.LegacyOption(true)); err != nil {
		panic(err) // its options are wrong
	}
	return written(&b, w, content)
}

func written(b *bytes.Buffer, w io.WriteCloser, content []byte) []byte {
	if _, err := w.Write(content); err != nil {
		panic(err) // a buffer takes all
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// WithSize appends a size, as the kernel's build does to a payload that is not gzip's.
func WithSize(packed []byte, size int) []byte {
	return binary.LittleEndian.AppendUint32(packed, uint32(size))
}

// XZ puts content into a stream of xz without making it smaller (https://tukaani.org/xz/xz-file-format.txt): no compressor in Go is needed, and what reads it can't tell.
func XZ(content []byte) []byte {
	const checkCRC32 = "\x00\x01"
	b := []byte("\xfd7zXZ\x00" + checkCRC32)
	b = binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE([]byte(checkCRC32)))

	block := withCRC([]byte{2, 0, 0x21, 1, 16, 0, 0, 0}) // 12 bytes of header: LZMA2, looking back on 1 MiB
	for first, rest := true, content; len(rest) > 0; first = false {
		chunk := rest[:min(len(rest), 1<<16)]
		rest = rest[len(chunk):]
		control := byte(2) // stored
		if first {
			control = 1 // stored, after a reset
		}
		block = append(binary.BigEndian.AppendUint16(append(block, control), uint16(len(chunk)-1)), chunk...)
	}
	block = append(block, 0)
	unpadded := len(block) + 4
	block = append(block, make([]byte, -len(block)&3)...)
	block = binary.LittleEndian.AppendUint32(block, crc32.ChecksumIEEE(content))

	index := []byte{0, 1}
	index = binary.AppendUvarint(index, uint64(unpadded))
	index = binary.AppendUvarint(index, uint64(len(content)))
	index = withCRC(append(index, make([]byte, -len(index)&3)...))

	footer := append(binary.LittleEndian.AppendUint32(nil, uint32(len(index)/4-1)), checkCRC32...)
	b = append(append(b, block...), index...)
	b = binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE(footer))
	return append(append(b, footer...), "YZ"...)
}

func withCRC(b []byte) []byte { return binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE(b)) }
