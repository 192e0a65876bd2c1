//go:build linux

package disk_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/tangle-network/microvm-runtime/internal/disk"
	"github.com/tangle-network/microvm-runtime/internal/testing/loopfs"
	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
)

// randomFile makes a file of so many bytes that are no zeros, with a hole of as many behind them.
func randomFile(t *testing.T, path string, size int) []byte {
	t.Helper()
	data := make([]byte, size)
	rand.Read(data) // never fails
	if err := errors.Join(os.WriteFile(path, data, 0o600), os.Truncate(path, int64(2*size))); err != nil {
		t.Fatal(err)
	}
	return append(data, make([]byte, size)...)
}

// TestHostCloneSharesBlocks: a clone on a file system that can costs nothing, and elsewhere, or from one file system to another, its source's data. Either way it is the source's content, and
// its own.
func TestHostCloneSharesBlocks(t *testing.T) {
	ring.Host(t)
	if !loopfs.Private(t) {
		return
	}
	const size = 4 << 20
	at := map[string]string{}
	for _, kind := range []string{loopfs.XFS, loopfs.PlainXFS, loopfs.Ext4} {
		at[kind] = loopfs.Mount(t, kind, 320)
	}
	for _, row := range []struct {
		from, to string
		shares   bool
	}{
		{loopfs.XFS, loopfs.XFS, true}, {loopfs.PlainXFS, loopfs.PlainXFS, false}, {loopfs.Ext4, loopfs.Ext4, false},
		{loopfs.XFS, loopfs.Ext4, false}, {loopfs.Ext4, loopfs.XFS, false}, {loopfs.XFS, loopfs.PlainXFS, false},
	} {
		name := row.from + "-" + row.to
		src, dst := filepath.Join(at[row.from], name+".source"), filepath.Join(at[row.to], name)
		content := randomFile(t, src, size)
		cloned, err := disk.Clone(t.Context(), dst, src)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		want, shared := disk.Cloned{Copied: size}, int64(0)
		if row.shares {
			want, shared = disk.Cloned{Reflinked: true}, size
		}
		if cloned != want {
			t.Errorf("%s: %+v, want %+v", name, cloned, want)
		}
		if got := loopfs.Shared(t, dst); got != shared {
			t.Errorf("%s: %d bytes are shared, want %d", name, got, shared)
		}
		if got, err := os.ReadFile(dst); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%s: another content, %v", name, err)
		}
		f, err := os.OpenFile(dst, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt(make([]byte, 4096), 0); err != nil {
			t.Error(err)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
		if got, err := os.ReadFile(src); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%s: what was written to the clone is in its source, %v", name, err)
		}
		if got := loopfs.Shared(t, dst); row.shares && got != shared-4096 {
			t.Errorf("%s: with a block of its own %d bytes are shared, want %d", name, got, shared-4096)
		}
	}
}
