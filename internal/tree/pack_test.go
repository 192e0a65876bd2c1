//go:build linux

package tree_test

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/tangle-network/microvm-runtime/internal/tree"
)

// sender is a writer that takes files as they are.
type sender struct {
	bytes.Buffer
	files int
}

func (s *sender) SendFile(f *os.File, n int64) (int64, error) {
	s.files++
	return io.CopyN(&s.Buffer, f, n)
}

// TestAFileThatIsSentIsInTheTar packs the same with and without the shorter way for large files: no byte of the tar is another.
func TestAFileThatIsSentIsInTheTar(t *testing.T) {
	dir := t.TempDir()
	for name, size := range map[string]int{"a": 1, "b": 256 << 10, "c": 1<<20 + 1, "d": 600<<10 + 511, "e": 0, "f": 2} {
		if err := os.WriteFile(filepath.Join(dir, name), bytes.Repeat([]byte(name), size), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var plain bytes.Buffer
	before, err := tree.Pack(t.Context(), &plain, dir, tree.PackOptions{Name: "."})
	if err != nil {
		t.Fatal(err)
	}
	var short sender
	progress, err := tree.Pack(t.Context(), &short, dir, tree.PackOptions{Name: "."})
	if err != nil || progress != before {
		t.Errorf("%+v, %v, want %+v", progress, err, before)
	}
	if short.files == 0 || !bytes.Equal(short.Bytes(), plain.Bytes()) {
		t.Errorf("%d bytes, and %d parts that were sent, are not the %d", short.Len(), short.files, plain.Len())
	}
	to := t.TempDir()
	if _, err := tree.Put(t.Context(), &short.Buffer, to, tree.PutOptions{Contents: true}); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(filepath.Join(to, "d")); err != nil || len(text) != 600<<10+511 || len(bytes.Trim(text, "d")) > 0 {
		t.Errorf("%d bytes are there, %v", len(text), err)
	}
}
