//go:build linux

package snapstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/disk"
)

// chunk is how much of a file is looked at at once, in bytes.
const chunk = 1 << 20

// extents calls a function for each part of a file, in order, at most a chunk large: hole says that the part is one, and reads as zeros.
func extents(ctx context.Context, f *os.File, size int64, do func(at, length int64, hole bool) error) error {
	at := int64(0)
	upTo := func(end int64, hole bool) error {
		for ; at < end; at += min(chunk, end-at) {
			if err := context.Cause(ctx); err != nil {
				return err
			}
			if err := do(at, min(chunk, end-at), hole); err != nil {
				return err
			}
		}
		return nil
	}
	for extent, err := range disk.Extents(f, size) {
		if err == nil {
			err = upTo(extent.Begin, true)
		}
		if err == nil {
			err = upTo(extent.End, false)
		}
		if err != nil {
			return err
		}
	}
	return upTo(size, true)
}

// verifyFlat says whether the whole memory that was made of a diff, if it was, is what its parent's and its own make.
func (s *Store) verifyFlat(ctx context.Context, m *Manifest) error {
	if m.Kind == microvm.SnapshotFull {
		return nil
	}
	made, err := os.Open(s.file(m.UID, flat))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer made.Close()
	parent, err := s.Read(m.Parent) // which the caller holds
	if err != nil {
		return err
	}
	path, err := s.Memory(ctx, &parent)
	if err != nil {
		return err
	}
	below, err := os.Open(path)
	if err != nil {
		return err
	}
	defer below.Close()
	over, err := os.Open(s.Path(m, Memory))
	if err != nil {
		return err
	}
	defer over.Close()
	return extents(ctx, over, m.Files[Memory].Size, func(at, length int64, hole bool) error {
		want := over
		if hole {
			want = below
		}
		if same, err := equal(made, want, at, length); err != nil || !same {
			return errors.Join(err, fmt.Errorf("%w: snapshot %s: %s is not what was made of its memory and that of %s: it differs within 1 MiB from byte %d (delete the file)",
				microvm.ErrIncompatible, m.Name, made.Name(), parent.Name, at))
		}
		return nil
	})
}

// equal says whether two files have the same bytes at a place.
func equal(a, b *os.File, at, length int64) (bool, error) {
	one, other := make([]byte, length), make([]byte, length)
	_, err := io.ReadFull(io.NewSectionReader(a, at, length), one)
	_, failed := io.ReadFull(io.NewSectionReader(b, at, length), other)
	return bytes.Equal(one, other), errors.Join(err, failed)
}
