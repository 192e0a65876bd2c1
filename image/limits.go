package image

import "github.com/tangle-network/microvm-runtime/internal/flatten"

// Limits bound what an image may come to, as images are made by strangers. Zero is the default.
type Limits struct {
	Bytes    int64 // Of all layers' uncompressed tars, and of all files' contents. Optional: 32 GiB. At most 40 GiB.
	Files    int64 // Names of files. Optional: 1 million.
	Metadata int64 // Bytes of names, link targets and extended attributes; they are kept in memory. Optional: 256 MiB.
	Layers   int   // Optional: 512.
}

const (
	maxBytes    = 40 << 30 // What the ext4 writer can write in one file without a mistake.
	maxDocument = 4 << 20  // Of a manifest or a configuration, in bytes.
)

func (l Limits) resolve() flatten.Limits {
	f := flatten.Limits(l).WithDefaults()
	f.Bytes = min(f.Bytes, maxBytes)
	return f
}
