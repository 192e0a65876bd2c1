package image

import (
	"archive/tar"
	"fmt"
	"hash/maphash"
	"path"

	"github.com/tangle-network/microvm-runtime/internal/flatten"
)

// quota is what entries may still come to: the converter keeps all but their contents in memory, and writes these before it knows that there is no room.
type quota struct {
	limits      flatten.Limits // Bytes is of the contents, in whole blocks.
	files, meta int64          // so far
	bytes       int64          // left
	seed        maphash.Seed
	dirs        map[uint64]struct{} // By hash: whole paths would be much longer than the names that are counted.
}

func newQuota(limits flatten.Limits) *quota {
	return &quota{limits: limits, bytes: limits.Bytes, seed: maphash.MakeSeed(), dirs: map[uint64]struct{}{}}
}

// take counts an entry, and the directories above it that it is the first to name: the converter makes them.
func (q *quota) take(h *tar.Header) error {
	name := path.Clean("/" + h.Name)
	meta := len(path.Base(name)) + len(h.Linkname)
	for key, value := range h.PAXRecords {
		meta += len(key) - len(xattrPrefix) + len(value)
	}
	if err := q.count(meta); err != nil {
		return err
	}
	if h.Typeflag == tar.TypeDir {
		q.dirs[maphash.String(q.seed, name)] = struct{}{}
	}
	for dir := path.Dir(name); dir != "/"; dir = path.Dir(dir) {
		key := maphash.String(q.seed, dir)
		if _, ok := q.dirs[key]; ok {
			break
		}
		q.dirs[key] = struct{}{}
		if err := q.count(len(path.Base(dir))); err != nil {
			return err
		}
	}
	if h.Size > min(q.bytes, maxBytes) {
		return fmt.Errorf("%w: a file of %d bytes, at most %d", ErrLimit, h.Size, min(q.bytes, maxBytes))
	}
	q.bytes -= (h.Size + blockSize - 1) / blockSize * blockSize
	return nil
}

func (q *quota) count(meta int) error {
	q.files++
	q.meta += int64(meta)
	switch {
	case q.files > q.limits.Files:
		return fmt.Errorf("%w: more than %d files", ErrLimit, q.limits.Files)
	case q.meta > q.limits.Metadata:
		return fmt.Errorf("%w: more than %d bytes of names, link targets and extended attributes", ErrLimit, q.limits.Metadata)
	}
	return nil
}
