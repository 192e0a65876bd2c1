//go:build linux

package pager

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	microvm "github.com/tangle-network/microvm-runtime"
)

// Source is where a machine's memory is, as it was in the snapshot. Its methods may be called at the same time.
type Source interface {
	// ReadAt reads as io.ReaderAt does: what it can't fill whole is an error. The pager reads whole pages, several at once when it prefetches.
	io.ReaderAt
	io.Closer
	// Size returns the memory's size in bytes.
	Size() int64
	// Slow says whether it may take longer to read a page than to serve one: then several are read at the same time.
	Slow() bool
}

// The kinds of sources that every pager knows.
const (
	SourceFile   = "file"   // A flat file. The default.
	SourceChunks = "chunks" // What WriteChunks has written.
	SourceDiff   = "diff"   // A file of the memory's size; what is a hole in it is as it was before.
)

// Location says what a source is, in words that can be handed to another process.
type Location struct {
	Kind   string          `json:"kind,omitempty"`
	Path   string          `json:"path,omitempty"`
	Over   *Location       `json:"over,omitempty"`   // With SourceDiff: what was before.
	Detail json.RawMessage `json:"detail,omitempty"` // For kinds of others.
}

// Opener opens sources of a kind that is not this package's.
type Opener func(Location) (Source, error)

// maxLayers is how many diffs may lie over each other: each costs a descriptor and a look at each page.
const maxLayers = 64

// Open opens a source. An unknown kind is microvm.ErrUnsupported. Others' openers are by their kinds, and optional.
func (l Location) Open(others map[string]Opener) (Source, error) {
	s, err := l.open(others, maxLayers)
	if err != nil {
		return nil, fmt.Errorf("memory %s: %w", l.Path, err)
	}
	return s, nil
}

func (l Location) open(others map[string]Opener, layers int) (Source, error) {
	switch l.Kind {
	case "", SourceFile:
		return openFlat(l.Path)
	case SourceChunks:
		return openChunks(l.Path)
	case SourceDiff:
		if l.Over == nil || layers == 0 {
			return nil, fmt.Errorf("%w: a diff must lie over something, and at most %d over each other", microvm.ErrInvalid, maxLayers)
		}
		below, err := l.Over.open(others, layers-1)
		if err != nil {
			return nil, err
		}
		s, err := openDiff(l.Path, below)
		if err != nil {
			return nil, errors.Join(err, below.Close())
		}
		return s, nil
	}
	opener, ok := others[l.Kind]
	if !ok {
		return nil, fmt.Errorf("%w: no source of kind %q is known", microvm.ErrUnsupported, l.Kind)
	}
	return opener(l)
}
