//go:build linux

package pager

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/unix"
)

// content is some memory: text, noise, and zeros.
func content(t testing.TB, size int) []byte {
	t.Helper()
	b := bytes.Repeat([]byte("of a guest "), size/11+1)[:size]
	rand.NewChaCha8([32]byte{3}).Read(b[size/4 : size/2])
	clear(b[size/2 : size*3/4])
	return b
}

func write(t testing.TB, b []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(path, b, 0o600))
	return path
}

func chunkFile(t testing.TB, memory []byte, chunkSize int) []byte {
	t.Helper()
	var b bytes.Buffer
	must(t, WriteChunks(t.Context(), &b, bytes.NewReader(memory), int64(len(memory)), &ChunkOptions{ChunkSize: chunkSize}))
	return b.Bytes()
}

func open(t testing.TB, l Location) Source {
	t.Helper()
	s, err := l.Open(nil)
	must(t, err)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// expectSame reads everything, at random and at the same time.
func expectSame(t *testing.T, s Source, want []byte) {
	t.Helper()
	if s.Size() != int64(len(want)) {
		t.Fatalf("its size is %d, want %d", s.Size(), len(want))
	}
	var reading sync.WaitGroup
	for range 4 {
		reading.Go(func() {
			for range 200 {
				at := rand.IntN(len(want))
				b := make([]byte, 1+rand.IntN(min(len(want)-at, 64<<10)))
				if n, err := s.ReadAt(b, int64(at)); n != len(b) || err != nil || !bytes.Equal(b, want[at:at+n]) {
					t.Errorf("%d of %d bytes at %d, %v, or others", n, len(b), at, err)
					return
				}
			}
		})
	}
	reading.Wait()
	b := make([]byte, 100)
	if n, err := s.ReadAt(b, int64(len(want)-50)); n != 50 || !errors.Is(err, io.EOF) || !bytes.Equal(b[:n], want[len(want)-50:]) {
		t.Errorf("across the end: %d bytes, %v", n, err)
	}
}

func TestSourcesAreTheMemory(t *testing.T) {
	memory := content(t, 1<<20+4096)
	expectSame(t, open(t, Location{Path: write(t, memory)}), memory)
	for _, size := range []int{4096, 128 << 10, 4 << 20} {
		expectSame(t, open(t, Location{Kind: SourceChunks, Path: write(t, chunkFile(t, memory, size))}), memory)
	}
	if size := len(chunkFile(t, memory, 0)); size > len(memory)/2 {
		t.Errorf("%d bytes of which a quarter is noise have become %d", len(memory), size)
	}
}

func TestDiffLiesOver(t *testing.T) {
	memory := content(t, 1<<20)
	l := Location{Kind: SourceChunks, Path: write(t, chunkFile(t, memory, 64<<10))}
	for n := range 3 {
		path := write(t, nil)
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		must(t, err, f.Truncate(int64(len(memory))))
		for at := n * 8192; at < len(memory); at += 256 << 10 {
			piece := bytes.Repeat([]byte{byte(n)}, 8192) // of the first nothing but zeros, and data all the same
			copy(memory[at:], piece)
			_, err := f.WriteAt(piece, int64(at))
			must(t, err)
		}
		must(t, f.Close())
		below := l
		l = Location{Kind: SourceDiff, Path: path, Over: &below}
	}
	s := open(t, l)
	expectSame(t, s, memory)
	if !s.Slow() {
		t.Error("a diff over chunks passes for quick")
	}
}

func TestSourcesThatAreNone(t *testing.T) {
	good := Location{Path: write(t, make([]byte, 8192))}
	fifo := filepath.Join(t.TempDir(), "fifo")
	must(t, unix.Mkfifo(fifo, 0o600))
	deep := good
	for range maxLayers + 1 {
		below := deep
		deep = Location{Kind: SourceDiff, Path: good.Path, Over: &below}
	}
	for name, c := range map[string]struct {
		location Location
		want     error
	}{
		"missing":          {Location{Path: "/nowhere"}, fs.ErrNotExist},
		"FIFO":             {Location{Path: fifo}, microvm.ErrInvalid},
		"directory":        {Location{Path: "/"}, microvm.ErrInvalid},
		"unknown":          {Location{Kind: "cloud"}, microvm.ErrUnsupported},
		"over nothing":     {Location{Kind: SourceDiff, Path: good.Path}, microvm.ErrInvalid},
		"of another size":  {Location{Kind: SourceDiff, Path: write(t, make([]byte, 4096)), Over: &good}, microvm.ErrInvalid},
		"no chunks":        {Location{Kind: SourceChunks, Path: good.Path}, errChunks},
		"shorter than one": {Location{Kind: SourceChunks, Path: write(t, []byte("mvmchnk1"))}, errChunks},
		"too deep":         {deep, microvm.ErrInvalid},
	} {
		before := descriptors(t)
		if _, err := c.location.Open(nil); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		if after := descriptors(t); after != before {
			t.Errorf("%s: %d descriptors, before it were %d", name, after, before)
		}
	}
	called := false
	_, err := Location{Kind: "cloud"}.Open(map[string]Opener{"cloud": func(Location) (Source, error) { called = true; return nil, fs.ErrInvalid }})
	if !called || !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("another's opener was called: %t, %v", called, err)
	}
}

func TestFlatFileThatIsCut(t *testing.T) {
	path := write(t, make([]byte, 8192))
	s := open(t, Location{Path: path})
	must(t, os.Truncate(path, 4096))
	if n, err := s.ReadAt(make([]byte, 4096), 4096); n > 0 || err == nil {
		t.Errorf("%d bytes, %v", n, err)
	}
}

// TestDamagedChunksAreNeverRead as what they are not: each byte that is changed is an error, or changes nothing.
func TestDamagedChunksAreNeverRead(t *testing.T) {
	memory := content(t, 64<<10)
	file := chunkFile(t, memory, 16<<10)
	refused := 0
	for at := range file {
		damaged := bytes.Clone(file)
		damaged[at] ^= 1 << rand.IntN(8)
		got, err := readAll(damaged)
		if err == nil && !bytes.Equal(got, memory) {
			t.Fatalf("byte %d of %d changes what is read", at, len(file))
		}
		if err != nil {
			refused++
		}
	}
	if refused < len(file)*9/10 {
		t.Errorf("%d of %d damages were seen", refused, len(file))
	}
	for _, length := range []int{0, 1, trailerSize, len(file) - 1} {
		if _, err := readAll(file[:length]); err == nil {
			t.Errorf("%d of %d bytes can be read", length, len(file))
		}
	}
	if got, err := readAll(file); err != nil || !bytes.Equal(got, memory) {
		t.Errorf("undamaged: %v", err)
	}
}

func readAll(file []byte) ([]byte, error) {
	s, err := NewChunks(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		return nil, err
	}
	defer s.Close()
	return io.ReadAll(io.NewSectionReader(s, 0, s.Size()))
}

func FuzzChunks(f *testing.F) {
	file := chunkFile(f, content(f, 8192), 4096)
	f.Add(file)
	f.Add(file[len(file)-trailerSize:])
	f.Fuzz(func(t *testing.T, file []byte) {
		index, size, chunkSize, err := readIndex(bytes.NewReader(file), int64(len(file)))
		if err == nil && (len(index)*entrySize > len(file) || size > int64(len(index))*int64(chunkSize)) {
			t.Fatalf("%d bytes in %d chunks of %d", size, len(index), chunkSize)
		}
	})
}

// failing reads some bytes, and then no more.
type failing struct{ good int64 }

func (f failing) ReadAt(b []byte, at int64) (int, error) {
	if at+int64(len(b)) > f.good {
		return 0, errors.New("the disk has a hole")
	}
	return len(b), nil
}

func TestWriteChunksRefuses(t *testing.T) {
	for _, o := range []ChunkOptions{{ChunkSize: 100}, {ChunkSize: 32 << 20}, {ChunkSize: -4096}} {
		if err := WriteChunks(t.Context(), io.Discard, failing{1 << 20}, 1<<20, &o); !errors.Is(err, microvm.ErrInvalid) {
			t.Errorf("%+v: %v", o, err)
		}
	}
	if err := WriteChunks(t.Context(), io.Discard, failing{1 << 20}, 2<<20, nil); err == nil || !strings.Contains(err.Error(), "the disk has a hole") {
		t.Error(err)
	}
	left, cancel := context.WithCancel(t.Context())
	cancel()
	if err := WriteChunks(left, io.Discard, failing{1 << 20}, 1<<20, nil); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := WriteChunks(t.Context(), io.Discard, failing{1 << 20}, 1<<20, nil); err != nil {
		t.Error(err)
	}
}
