//go:build linux

package pager

import (
	"encoding/json"
	"errors"
	"os"
	"sync/atomic"
	"testing"

	"github.com/tangle-network/microvm-runtime/internal/helper"
	"github.com/tangle-network/microvm-runtime/internal/testing/leak"
)

func TestMain(m *testing.M) {
	helper.Main(Kind(openers()), WatchKind())
	if text, ok := os.LookupEnv(guestVariable); ok {
		os.Exit(beGuest(text))
	}
	os.Exit(leak.Main(m))
}

// openers are of sources that go wrong.
func openers() map[string]Opener { return map[string]Opener{"broken": openBroken} }

// broken is a file that can't be read any more after some pages.
type broken struct {
	*flat
	brokenAfter
	reads atomic.Int64
}

// brokenAfter is the Detail of its Location.
type brokenAfter struct {
	Fail int64  // Reads after which there are errors. 0 is never.
	Hang int64  // Reads after which they take for ever. 0 is never.
	Tell string // Path of a file that is made before that.
}

func openBroken(l Location) (Source, error) {
	f, err := openFlat(l.Path)
	if err != nil {
		return nil, err
	}
	b := &broken{flat: f}
	return b, json.Unmarshal(l.Detail, &b.brokenAfter)
}

func (b *broken) ReadAt(p []byte, at int64) (int, error) {
	n := b.reads.Add(1)
	if b.Hang > 0 && n > b.Hang {
		os.WriteFile(b.Tell, nil, 0o600)
		select {}
	}
	if b.Fail > 0 && n > b.Fail {
		return 0, errors.New("the disk has a hole")
	}
	return b.flat.ReadAt(p, at)
}
