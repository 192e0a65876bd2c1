//go:build linux

package image_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/compression"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/image"
)

func TestPull(t *testing.T) {
	h := newHub(t)
	s, dir := storeIn(t)
	img := simple(t)
	reference := h.push(t, "team/app:v1", img)
	var told []image.Progress
	begin := time.Now().Add(-time.Second)
	got, err := s.Pull(t.Context(), reference, &image.PullOptions{Platform: "linux/amd64", Progress: func(p image.Progress) { told = append(told, p) }})
	if err != nil {
		t.Fatal(err)
	}
	digest, err := img.Digest()
	digest = must(t, digest, err)
	want := image.Image{
		References: []string{reference}, Digest: digest.String(), Platform: "linux/amd64", Created: got.Created, Base: got.Base,
		Config: image.Config{
			Entrypoint: []string{"/bin/sh", "-c"}, Cmd: []string{"date"}, Env: []string{"PATH=/bin", "A=b"}, User: "1000:1000", WorkingDir: "/work",
			ExposedPorts: []string{"443/tcp", "80/tcp"}, Labels: map[string]string{"k": "v"}, StopSignal: "SIGINT",
		},
	}
	if !reflect.DeepEqual(got, want) || got.Created.Before(begin) || got.Created.After(time.Now()) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	checkMade(t, got.Base, got.Path, "image.json")
	e := open(t, got.Path)
	if x, y, big := e.stat("/d/x"), e.content("/d/y"), e.content("/big"); x != "" || y != "upper" || big != noise(300<<10) {
		t.Errorf("x %q, y %q, big %d bytes", x, y, len(big))
	}
	checkProgress(t, img, told)
	if names := left(t, dir); len(names) != 3 { // the base, its record, the references
		t.Errorf("the store has %q", names)
	}

	h.answering(nil)
	again := pull(t, s, reference)
	if !reflect.DeepEqual(again, got) || len(h.asked("/blobs/")) > 1 { // the configuration
		t.Errorf("once more: %+v, asked for %q", again, h.asked("/blobs/"))
	}
	for _, text := range []string{reference, got.Digest, strings.TrimPrefix(got.Digest, "sha256:"), got.Digest[7:19], got.Digest[:30], h.host + "/team/app@" + got.Digest, "whatever@" + got.Digest} {
		if found, err := s.Get(text); err != nil || !reflect.DeepEqual(found, got) {
			t.Errorf("Get %s: %+v, %v", text, found, err)
		}
	}
	for _, text := range []string{"team/app:v1", h.host + "/team/app", "deadbeefdead", "sha256:" + strings.Repeat("0", 64)} {
		if found, err := s.Get(text); !errors.Is(err, microvm.ErrNotFound) {
			t.Errorf("Get %s: %+v, %v", text, found, err)
		}
	}
	if all, err := s.List(); err != nil || len(all) != 1 || !reflect.DeepEqual(all[0], got) {
		t.Errorf("List: %+v, %v", all, err)
	}
	if err := s.Verify(t.Context(), reference); err != nil {
		t.Error(err)
	}
	text, err := json.Marshal(got)
	for _, key := range []string{"references", "digest", "platform", "created", "config", "in_use", "path", "sha256", "size"} {
		if !strings.Contains(string(text), `"`+key+`":`) || err != nil {
			t.Errorf("the JSON has no %s: %s, %v", key, text, err)
		}
	}
}

// checkProgress looks at each stage's beginning and end.
func checkProgress(t *testing.T, img v1.Image, told []image.Progress) {
	t.Helper()
	last := map[string]image.Progress{}
	for _, p := range told {
		key := string(p.Stage) + " " + p.Layer
		before, ok := last[key]
		if !ok && p.Done != 0 && p.Stage != image.StageRead || ok && p.Done < before.Done {
			t.Errorf("%+v after %+v", p, before)
		}
		last[key] = p
	}
	layers, err := img.Layers()
	for _, l := range must(t, layers, err) {
		digest, _ := l.Digest()
		size, _ := l.Size()
		if p := last["download "+digest.String()]; p.Done != size || p.Total != size {
			t.Errorf("%+v, and the layer has %d bytes", p, size)
		}
		if p := last["read "+digest.String()]; p.Done == 0 || p.Total != p.Done {
			t.Errorf("%+v", p)
		}
	}
	if p := last["build "]; p.Total != int64(len("upper"))+300<<10 || p.Done != p.Total {
		t.Errorf("%+v", p)
	}
}

func TestPullPlatforms(t *testing.T) {
	h := newHub(t)
	s, _ := storeIn(t)
	index := v1.ImageIndex(empty.Index)
	digests := map[string]string{}
	for _, p := range []v1.Platform{{OS: "unknown", Architecture: "unknown"}, {OS: "windows", Architecture: "amd64"}, {OS: "linux", Architecture: "arm", Variant: "v6"}, {OS: "linux", Architecture: "arm", Variant: "v7"}, {OS: "linux", Architecture: "amd64"}} {
		img := imageOf(t, func(c *v1.ConfigFile) { c.OS, c.Architecture, c.Variant = p.OS, p.Architecture, p.Variant }, layerOf(t, tarOf(t, file("platform", p.String())), compression.GZip))
		digest, err := img.Digest()
		digests[p.String()] = must(t, digest, err).String()
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &p}})
	}
	reference := h.push(t, "multi:1", index)
	nested := h.push(t, "multi:nested", mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: index}))
	for wanted, is := range map[string]string{"linux/amd64": "linux/amd64", "linux/arm": "linux/arm/v6", "linux/arm/v7": "linux/arm/v7"} {
		for _, reference := range []string{reference, nested} {
			got, err := s.Pull(t.Context(), reference, &image.PullOptions{Platform: wanted})
			if err != nil || got.Digest != digests[is] || got.Platform != is {
				t.Errorf("%s: %+v, %v", wanted, got, err)
			}
		}
	}
	if _, err := s.Pull(t.Context(), reference, &image.PullOptions{Platform: "linux/s390x"}); !errors.Is(err, microvm.ErrIncompatible) || !strings.Contains(err.Error(), "linux/arm/v7, linux/amd64") {
		t.Error("a platform that is not there:", err)
	}
	for _, wrong := range []string{"windows/amd64", "linux", "amd64", "linux/arm/v7/x", "linux/amd64:1"} {
		if _, err := s.Pull(t.Context(), reference, &image.PullOptions{Platform: wrong}); !errors.Is(err, microvm.ErrInvalid) {
			t.Errorf("platform %q: %v", wrong, err)
		}
	}
	single := h.push(t, "single:1", simple(t))
	if _, err := s.Pull(t.Context(), single, &image.PullOptions{Platform: "linux/arm64"}); !errors.Is(err, microvm.ErrIncompatible) {
		t.Error("an image for another platform:", err)
	}
}

func TestPullPinned(t *testing.T) {
	h := newHub(t)
	s, dir := storeIn(t)
	img := simple(t)
	h.push(t, "app:v1", img)
	digest, err := img.Digest()
	pinned := h.host + "/app@" + must(t, digest, err).String()
	raw, err := img.RawManifest()
	raw = must(t, raw, err)
	h.answering(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/manifests/") {
			return false
		}
		w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
		w.Header().Set("Docker-Content-Digest", digest.String())
		w.Write(append(slices.Clone(raw), ' '))
		return true
	})
	if _, err := s.Pull(t.Context(), pinned, amd64); !errors.Is(err, image.ErrDigest) {
		t.Error("another manifest than the digest's:", err)
	}
	isEmpty(t, "another manifest", dir)
	h.answering(nil)
	if got := pull(t, s, pinned); got.Digest != digest.String() || !slices.Equal(got.References, []string{pinned}) {
		t.Errorf("%+v", got)
	}
}

// A tag that moves takes its image's name along; a digest keeps it.
func TestPullMovedTag(t *testing.T) {
	h := newHub(t)
	s, _ := storeIn(t)
	reference := h.push(t, "app:v1", simple(t))
	first := pull(t, s, reference)
	h.push(t, "app:v1", imageOf(t, nil, layerOf(t, tarOf(t, file("new", "new")), compression.GZip)))
	second := pull(t, s, reference)
	if found, err := s.Get(reference); err != nil || found.Digest != second.Digest || second.Digest == first.Digest {
		t.Errorf("%+v, %v", found, err)
	}
	if found, err := s.Get(first.Digest); err != nil || len(found.References) != 0 {
		t.Errorf("the first: %+v, %v", found, err)
	}
}

// Credentials are those of Docker's configuration.
func TestPullWithCredentials(t *testing.T) {
	h := newHub(t)
	s, dir := storeIn(t)
	reference := h.push(t, "private:1", simple(t))
	for name, challenge := range map[string]string{"basic": `Basic realm="r"`, "bearer": `Bearer realm="http://` + h.host + `/token",service="s"`} {
		h.answering(func(w http.ResponseWriter, r *http.Request) bool {
			user, password, basic := r.BasicAuth()
			known := basic && user == "joe" && password == "sesame"
			if r.URL.Path == "/token" {
				if known && r.URL.Query().Get("scope") == "repository:private:pull" {
					fmt.Fprint(w, `{"token":"t0ken"}`)
				} else {
					w.WriteHeader(http.StatusUnauthorized)
				}
				return true
			}
			if name == "basic" && known || name == "bearer" && r.Header.Get("Authorization") == "Bearer t0ken" {
				return false
			}
			w.Header().Set("WWW-Authenticate", challenge)
			w.WriteHeader(http.StatusUnauthorized)
			return true
		})
		home := t.TempDir()
		t.Setenv("HOME", home)
		t.Setenv("DOCKER_CONFIG", filepath.Join(home, ".docker"))
		if _, err := s.Pull(t.Context(), reference, amd64); err == nil || !strings.Contains(err.Error(), "docker login "+h.host) {
			t.Errorf("%s without credentials: %v", name, err)
		}
		isEmpty(t, name, dir)
		err := errors.Join(os.Mkdir(filepath.Join(home, ".docker"), 0o700),
			os.WriteFile(filepath.Join(home, ".docker/config.json"), []byte(`{"auths":{"`+h.host+`":{"auth":"am9lOnNlc2FtZQ=="}}}`), 0o600))
		if err != nil {
			t.Fatal(err)
		}
		if got := pull(t, s, reference); got.Digest == "" {
			t.Errorf("%s with credentials: %+v", name, got)
		}
		if err := s.Remove(t.Context(), reference); err != nil {
			t.Error(err)
		}
	}
}

// Temporary failures are tried again, others are not.
func TestPullTriesAgain(t *testing.T) {
	h := newHub(t)
	s, dir := storeIn(t)
	reference := h.push(t, "app:v1", simple(t))
	for name, c := range map[string]struct {
		path     string
		status   int
		times    int // 0 for ever
		want     error
		requests int // for the path, each
	}{
		"ping once":          {"/v2/", 503, 1, nil, 2},
		"manifest twice":     {"/manifests/", 502, 2, nil, 3},
		"blobs twice":        {"/blobs/", 500, 2, nil, 3},
		"blobs for ever":     {"/blobs/", 503, 0, errAny, image.Attempts},
		"manifest for ever":  {"/manifests/", 504, 0, errAny, image.Attempts},
		"no such manifest":   {"/manifests/", 404, 0, microvm.ErrNotFound, 1},
		"no such blob":       {"/blobs/", 404, 0, microvm.ErrNotFound, 1},
		"forbidden":          {"/manifests/", 403, 0, errAny, 1},
		"too many, once":     {"/manifests/", 429, 1, nil, 2},
		"too many, for ever": {"/manifests/", 429, 0, microvm.ErrExhausted, image.Attempts},
		"cut, once":          {"/manifests/", 0, 1, nil, 2},
		"cut, for ever":      {"/blobs/", 0, 0, errAny, image.Attempts},
	} {
		t.Run(name, func(t *testing.T) {
			failures := map[string]int{}
			h.answering(func(w http.ResponseWriter, r *http.Request) bool {
				matches := strings.Contains(r.URL.Path, c.path) && (c.path != "/v2/" || r.URL.Path == c.path)
				h.mu.Lock()
				defer h.mu.Unlock()
				if failures[r.URL.Path]++; !matches || c.times > 0 && failures[r.URL.Path] > c.times {
					return false
				}
				if c.status == 0 {
					hijack(t, w).Close()
				} else {
					w.WriteHeader(c.status)
				}
				return true
			})
			_, err := s.Pull(t.Context(), reference, amd64)
			if c.want == nil && err != nil || c.want != nil && (err == nil || c.want != errAny && !errors.Is(err, c.want)) {
				t.Errorf("%v, want %v", err, c.want)
			}
			h.mu.Lock()
			for path, n := range failures {
				if c.status == 0 { // the transport tries itself what it sent on an old connection
					n = min(n, c.requests)
				}
				if strings.Contains(path, c.path) && (c.path != "/v2/" || path == c.path) && n != c.requests {
					t.Errorf("%s was asked for %d times, want %d", path, n, c.requests)
				}
			}
			h.mu.Unlock()
			if err == nil {
				if err := s.Remove(t.Context(), reference); err != nil {
					t.Error(err)
				}
			}
			if _, err := s.Prune(t.Context(), nil); err != nil {
				t.Error(err)
			}
			isEmpty(t, name, dir)
		})
	}
}

var errAny = errors.New("any error")

// A context ends a pull at once, whatever it waits for. What had come stays.
func TestPullEndsWithItsContext(t *testing.T) {
	h := newHub(t)
	s, dir := storeIn(t)
	reference := h.push(t, "app:v1", simple(t))
	for _, part := range []string{"/v2/", "/manifests/", "/blobs/"} {
		ctx, cancel := context.WithCancelCause(t.Context())
		gone := errors.New("gone")
		h.answering(func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.Contains(r.URL.Path, part) || part == "/v2/" && r.URL.Path != part {
				return false
			}
			w.Header().Set("Content-Length", "1000")
			w.WriteHeader(http.StatusOK)
			http.NewResponseController(w).Flush()
			cancel(gone)
			<-r.Context().Done()
			return true
		})
		if _, err := s.Pull(ctx, reference, amd64); !errors.Is(err, gone) {
			t.Errorf("%s: %v", part, err)
		}
	}
	h.answering(nil)
	pull(t, s, reference)
	if names := left(t, dir); len(names) != 3 {
		t.Errorf("%q is left", names)
	}
}

// Where nothing comes any more, another connection is tried.
func TestPullStalled(t *testing.T) {
	h := newHub(t)
	s, _ := storeIn(t)
	s.SetPace(time.Millisecond, time.Second)
	reference := h.push(t, "app:v1", simple(t))
	stalled := map[string]bool{}
	h.answering(func(w http.ResponseWriter, r *http.Request) bool {
		h.mu.Lock()
		before := stalled[r.URL.Path]
		stalled[r.URL.Path] = true
		h.mu.Unlock()
		if before || !strings.Contains(r.URL.Path, "/blobs/") {
			return false
		}
		<-r.Context().Done()
		return true
	})
	pull(t, s, reference)
	if n := len(h.asked("/blobs/")); n != 6 { // two layers and the configuration, each twice
		t.Errorf("%d requests: %q", n, h.asked("/blobs/"))
	}
}

// counting is a transport that counts, and shows that a caller's own is used.
type counting struct {
	base  *http.Transport
	count int
}

func (c *counting) RoundTrip(r *http.Request) (*http.Response, error) {
	c.count++
	return c.base.RoundTrip(r)
}

func TestPullThroughTransport(t *testing.T) {
	h := newHub(t)
	s, _ := storeIn(t)
	reference := h.push(t, "app:v1", imageOf(t, nil))
	c := &counting{base: http.DefaultTransport.(*http.Transport).Clone()}
	defer c.base.CloseIdleConnections()
	if _, err := s.Pull(t.Context(), reference, &image.PullOptions{Platform: "linux/amd64", Transport: c}); err != nil || c.count == 0 {
		t.Errorf("%d requests, %v", c.count, err)
	}
}

func TestPullRefuses(t *testing.T) {
	s, dir := storeIn(t)
	for _, reference := range []string{"", "UPPER", "a b", "a@sha256:12", "http://host/x", "host:port:1/x", "-x", "a/../b", strings.Repeat("x", 300)} {
		if _, err := s.Pull(t.Context(), reference, nil); !errors.Is(err, microvm.ErrInvalid) {
			t.Errorf("%q: %v", reference, err)
		}
	}
	if _, err := s.Pull(t.Context(), "127.0.0.1:1/nobody:1", nil); err == nil {
		t.Error("nobody listens, and it was pulled")
	}
	isEmpty(t, "nothing was pulled", dir)
}
