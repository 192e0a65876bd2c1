//go:build linux

package image_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/compression"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/tangle-network/microvm-runtime/image"
)

// large is an image of one layer of about a MiB, and the layer's bytes.
func large(t *testing.T) (v1.Image, []byte, string) {
	t.Helper()
	content := tarOf(t, file("big", noise(1<<20)))
	layer := layerOf(t, content, compression.None)
	digest, err := layer.Digest()
	return imageOf(t, nil, layer), content, must(t, digest, err).String()
}

// cutter sends a layer's bytes and cuts the connection again and again.
type cutter struct {
	t       *testing.T
	content []byte
	every   int  // Bytes between two cuts; 0 for none.
	ranges  bool // It knows what a range is.

	mu   sync.Mutex
	sent int
	from []string
}

func (c *cutter) serve(w http.ResponseWriter, r *http.Request) {
	rest, status := c.content, http.StatusOK
	start := 0
	if n, _ := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &start); n == 1 && c.ranges {
		if start > len(rest) {
			w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
			return
		}
		rest, status = rest[start:], http.StatusPartialContent
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", start, len(c.content)-1, len(c.content)))
	}
	w.Header().Set("Content-Length", fmt.Sprint(len(rest)))
	w.WriteHeader(status)
	now := rest
	if c.every > 0 && len(rest) > c.every {
		now = rest[:c.every]
	}
	c.mu.Lock()
	c.sent += len(now)
	c.from = append(c.from, r.Header.Get("Range"))
	c.mu.Unlock()
	w.Write(now)
	http.NewResponseController(w).Flush()
	if len(now) < len(rest) {
		hijack(c.t, w).Close()
	}
}

// asked returns the ranges that were asked for, and how many bytes were sent, since it was asked last.
func (c *cutter) asked() (from []string, sent int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	from, sent = c.from, c.sent
	c.from, c.sent = nil, 0
	return from, sent
}

// A download goes on where its connection was cut, and sends nothing twice.
func TestPullResumes(t *testing.T) {
	h := newHub(t)
	s, _ := storeIn(t)
	img, content, digest := large(t)
	reference := h.push(t, "app:v1", img)
	c := &cutter{t: t, content: content, every: 100_000, ranges: true}
	h.answering(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, digest) {
			c.serve(w, r)
			return true
		}
		return false
	})
	got := pull(t, s, reference)
	if e := open(t, got.Path); e.content("/big") != noise(1<<20) {
		t.Error("the file is another")
	}
	from, sent := c.asked()
	if want := (len(content) + c.every - 1) / c.every; len(from) != want || from[1] == "" || sent > len(content)+c.every*want/2 {
		t.Errorf("%d bytes of %d were sent in %d requests, want %d: %q", sent, len(content), len(from), want, from)
	}
}

// What one process had downloaded when it ended, the next one takes over; and what power loss made of it, it does not.
func TestPullTakesOver(t *testing.T) {
	img, content, digest := large(t)
	garbage := append([]byte("garbage"), content[7:500_000]...)
	for name, c := range map[string]struct {
		part   []byte
		ranges bool
		from   []string // The ranges that are asked for.
	}{
		"half":                     {content[:500_000], true, []string{"bytes=500000-"}},
		"all of it":                {content, true, nil},
		"nothing":                  {nil, true, []string{""}},
		"half, without ranges":     {content[:500_000], false, []string{"bytes=500000-"}},
		"garbage":                  {garbage, true, []string{"bytes=500000-", ""}},
		"garbage and too much":     {append(noiseBytes(len(content)), "more"...), true, []string{""}},
		"garbage, without ranges":  {garbage, false, []string{"bytes=500000-"}},
		"too much after the right": {append(slices.Clip(content), "more"...), true, nil},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHub(t)
			s, dir := storeIn(t)
			reference := h.push(t, "app:v1", img)
			write(t, filepath.Join(dir, "blobs", strings.Replace(digest, ":", "-", 1)+".part"), c.part)
			serve := &cutter{t: t, content: content, ranges: c.ranges}
			h.answering(func(w http.ResponseWriter, r *http.Request) bool {
				if strings.HasSuffix(r.URL.Path, digest) {
					serve.serve(w, r)
					return true
				}
				return false
			})
			got := pull(t, s, reference)
			if e := open(t, got.Path); e.content("/big") != noise(1<<20) {
				t.Error("the file is another")
			}
			asked, _ := serve.asked()
			if len(asked) != len(c.from) {
				t.Fatalf("asked for %q, want %q", asked, c.from)
			}
			for i, from := range c.from {
				if !strings.HasPrefix(asked[i], from) || from == "" && asked[i] != "" {
					t.Errorf("asked for %q, want %q", asked, c.from)
				}
			}
			if names := left(t, dir); len(names) != 3 {
				t.Errorf("%q is left", names)
			}
		})
	}
}

func noiseBytes(n int) []byte { return []byte(noise(n)) }

// A registry that has forgotten what it had is asked from the beginning.
func TestPullRangeNotSatisfiable(t *testing.T) {
	h := newHub(t)
	s, dir := storeIn(t)
	img, content, digest := large(t)
	reference := h.push(t, "app:v1", img)
	write(t, filepath.Join(dir, "blobs", strings.Replace(digest, ":", "-", 1)+".part"), content[:1000])
	h.answering(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, digest) && r.Header.Get("Range") != "" {
			w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
			return true
		}
		return false
	})
	pull(t, s, reference)
}

// A pull that failed half-way leaves what is worth keeping, and the next pull asks for the rest only.
func TestPullAgainAfterFailure(t *testing.T) {
	h := newHub(t)
	s, dir := storeIn(t)
	img, content, digest := large(t)
	reference := h.push(t, "app:v1", img)
	var broken atomic.Bool
	broken.Store(true)
	c := &cutter{t: t, content: content, every: 300_000, ranges: true}
	h.answering(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, digest) {
			return false
		}
		if broken.Load() && r.Header.Get("Range") != "" {
			w.WriteHeader(http.StatusServiceUnavailable)
		} else {
			c.serve(w, r)
		}
		return true
	})
	if _, err := s.Pull(t.Context(), reference, amd64); err == nil {
		t.Fatal("it was pulled")
	}
	if info, err := os.Stat(filepath.Join(dir, "blobs", strings.Replace(digest, ":", "-", 1)+".part")); err != nil || info.Size() < 250_000 {
		t.Errorf("what is kept: %v, %v", info, err)
	}
	broken.Store(false)
	c.asked()
	pull(t, s, reference)
	if from, _ := c.asked(); len(from) == 0 || !strings.HasPrefix(from[0], "bytes=") {
		t.Errorf("asked for %q", from)
	}
	if _, err := s.Pull(t.Context(), reference, &image.PullOptions{Platform: "linux/amd64"}); err != nil {
		t.Error(err)
	}
}
