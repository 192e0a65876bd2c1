//go:build linux

package main

import (
	"archive/tar"
	"bytes"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/rogpeppe/go-internal/testscript"
)

// TestImageScripts runs what testdata/image says, each script with a state directory of its own, and a registry at $HUB that has app:1 and app:2 for linux/amd64.
func TestImageScripts(t *testing.T) {
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	hub := strings.TrimPrefix(server.URL, "http://")
	for _, tag := range []string{"1", "2"} {
		push(t, hub+"/app:"+tag, smallImage(t, tag))
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/image",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("MICROVM_STATE_DIR", filepath.Join(env.WorkDir, "state"))
			env.Setenv("HUB", hub)
			env.Setenv("HOME", env.WorkDir) // credentials of whoever runs the tests are none of theirs
			env.Setenv("GORACE", "atexit_sleep_ms=0")
			tag, err := name.NewTag("saved:1")
			if err != nil {
				return err
			}
			return tarball.WriteToFile(filepath.Join(env.WorkDir, "saved.tar"), tag, smallImage(t, "saved"))
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){"code": code},
	})
}

// smallImage is an image of one file.
func smallImage(t *testing.T, content string) v1.Image {
	t.Helper()
	return imageOf(t, map[string][]byte{"file": []byte(content)}, v1.Config{})
}

// imageOf is an image of programs, and what it says about running them.
func imageOf(t *testing.T, files map[string][]byte, says v1.Config) v1.Image {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for name, content := range files {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(content))}); err != nil {
			t.Fatal(err)
		}
		w.Write(content)
	}
	w.Close()
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	img, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		t.Fatal(err)
	}
	config := configOf(t, img)
	if says.Entrypoint != nil {
		config.Config = says
	}
	img, err = mutate.ConfigFile(img, config)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func configOf(t *testing.T, img v1.Image) *v1.ConfigFile {
	t.Helper()
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Config.Cmd = "linux", "amd64", []string{"cat", "/file"}
	return config
}

func push(t *testing.T, reference string, img v1.Image) {
	t.Helper()
	ref, err := name.ParseReference(reference)
	if err != nil {
		t.Fatal(err)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	defer transport.CloseIdleConnections()
	if err := remote.Write(ref, img, remote.WithTransport(transport), remote.WithAuth(authn.Anonymous)); err != nil {
		t.Fatal(err)
	}
}
