//go:build linux

package image_test

import (
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/compression"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/tangle-network/microvm-runtime/image"
)

// hub is a registry on this host.
type hub struct {
	host string

	mu       sync.Mutex
	requests []string // "GET /v2/…", with the range that was asked for.
	// answer answers in the registry's place when it returns true.
	answer func(w http.ResponseWriter, r *http.Request) bool
}

// newHub serves a registry until the test ends.
func newHub(t testing.TB) *hub {
	h := &hub{}
	real := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.mu.Lock()
		h.requests = append(h.requests, strings.TrimSpace(r.Method+" "+r.URL.Path+" "+r.Header.Get("Range")))
		answer := h.answer
		h.mu.Unlock()
		if answer == nil || !answer(w, r) {
			real.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(server.Close)
	h.host = strings.TrimPrefix(server.URL, "http://")
	return h
}

// answering makes the registry answer otherwise from now on.
func (h *hub) answering(answer func(w http.ResponseWriter, r *http.Request) bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.answer, h.requests = answer, nil
}

// asked returns the requests that have a text in them.
func (h *hub) asked(text string) (requests []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, r := range h.requests {
		if strings.Contains(r, text) {
			requests = append(requests, r)
		}
	}
	return requests
}

// push puts an image or index into the registry and returns its reference.
func (h *hub) push(t testing.TB, repo string, what any) string {
	t.Helper()
	reference := h.host + "/" + repo
	ref, err := name.ParseReference(reference)
	ref = must(t, ref, err)
	transport := http.DefaultTransport.(*http.Transport).Clone()
	defer transport.CloseIdleConnections()
	how := []remote.Option{remote.WithTransport(transport), remote.WithAuth(authn.Anonymous), remote.WithContext(t.Context())}
	switch what := what.(type) {
	case v1.Image:
		err = remote.Write(ref, what, how...)
	case v1.ImageIndex:
		err = remote.WriteIndex(ref, what, how...)
	default:
		t.Fatalf("%T", what)
	}
	if err != nil {
		t.Fatal(err)
	}
	return reference
}

// noise is content that does not compress.
func noise(size int) string {
	b := make([]byte, size)
	state := uint64(size) | 1
	for i := range b {
		state = state*6364136223846793005 + 1442695040888963407
		b[i] = byte(state >> 56)
	}
	return string(b)
}

// simple is an image of two layers.
func simple(t testing.TB) v1.Image {
	return imageOf(t, func(c *v1.ConfigFile) {
		c.Config = v1.Config{
			Entrypoint: []string{"/bin/sh", "-c"}, Cmd: []string{"date"}, Env: []string{"PATH=/bin", "A=b"}, User: "1000:1000", WorkingDir: "/work",
			ExposedPorts: map[string]struct{}{"80/tcp": {}, "443/tcp": {}}, Labels: map[string]string{"k": "v"}, StopSignal: "SIGINT",
		}
	}, layerOf(t, tarOf(t, dir("d"), file("d/x", "lower"), file("big", noise(300<<10))), compression.GZip), layerOf(t, tarOf(t, file("d/.wh.x", ""), file("d/y", "upper")), compression.ZStd))
}

// pull pulls for linux/amd64, wherever the test runs.
func pull(t testing.TB, s *image.Store, reference string) image.Image {
	t.Helper()
	made, err := s.Pull(t.Context(), reference, amd64)
	return must(t, made, err)
}

var amd64 = &image.PullOptions{Platform: "linux/amd64"}

// storeIn opens a store in a directory of the test's own, whose retries are quick.
func storeIn(t testing.TB) (*image.Store, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "images")
	s := openStore(t, dir)
	s.SetPace(time.Millisecond, time.Minute)
	return s, dir
}

// left returns the files in a store.
func left(t testing.TB, dir string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err == nil && !e.IsDir() {
			name, _ := filepath.Rel(dir, path)
			names = append(names, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// isEmpty fails the test when anything is left in a store.
func isEmpty(t testing.TB, what, dir string) {
	t.Helper()
	if names := left(t, dir); len(names) > 0 {
		t.Errorf("%s: %q is left", what, names)
	}
	for _, sub := range []string{"images", "building", "blobs"} {
		if entries, err := os.ReadDir(filepath.Join(dir, sub)); err != nil && !errors.Is(err, os.ErrNotExist) || len(entries) > 0 {
			t.Errorf("%s: %s has %v, %v", what, sub, entries, err)
		}
	}
}

// hijack cuts the connection off.
func hijack(t testing.TB, w http.ResponseWriter) net.Conn {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		t.Error(err)
	}
	return conn
}
