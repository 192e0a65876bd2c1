//go:build linux

package image_test

import (
	"archive/tar"
	"bytes"

	"crypto/sha256"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// ready is a layer whose DiffID is known.
type ready struct {
	v1.Layer
	diffID v1.Hash
}

func (r ready) DiffID() (v1.Hash, error) { return r.diffID, nil }

// huge is a layer with a file of chunks × 16 MiB, all of them the same, that takes little to make: each is a gzip member of its own.
func huge(t testing.TB, name string, chunks int) v1.Layer {
	t.Helper()
	const size = 16 << 20
	chunk := []byte(strings.Repeat(noise(16<<10), size/(16<<10)))
	var head bytes.Buffer
	w := tar.NewWriter(&head)
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(chunks) * size, ModTime: times.ModTime, Format: tar.FormatPAX}); err != nil {
		t.Fatal(err)
	}
	hash := sha256.New()
	hash.Write(head.Bytes())
	member := gzipped(t, chunk)
	blob := gzipped(t, head.Bytes())
	for range chunks {
		hash.Write(chunk)
		blob = append(blob, member...)
	}
	end := make([]byte, 1024)
	hash.Write(end)
	diffID, err := v1.NewHash(fmt.Sprintf("sha256:%x", hash.Sum(nil)))
	return ready{static.NewLayer(append(blob, gzipped(t, end)...), types.OCILayer), must(t, diffID, err)}
}

// What a pull needs in memory depends on how many files there are, not on how large they are. The bound is half of that for an image of 2 GiB, which the bench measures: with the race
// detector, as tests run, it needs about three times as much as without.
func TestMemory(t *testing.T) {
	h := newHub(t)
	dir := filepath.Join(t.TempDir(), "images")
	reference := h.push(t, "huge:1", imageOf(t, nil, huge(t, "a", 2), huge(t, "b", 3), huge(t, "c", 3)))
	lines := order{Store: dir, Pull: reference, Calls: 1}.start(t)()
	if len(lines) != 2 || !strings.HasPrefix(lines[0], "sha256:") {
		t.Fatal(lines)
	}
	peak := 0
	if _, err := fmt.Sscanf(lines[1], "VmHWM: %d kB", &peak); err != nil {
		t.Fatal(lines, err)
	}
	t.Logf("128 MiB needed %d MiB", peak>>10)
	if peak == 0 || peak > 64<<10 {
		t.Errorf("it needed %d KiB", peak)
	}
}
