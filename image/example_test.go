//go:build linux

package image_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/tangle-network/microvm-runtime/image"
)

// An image from a registry: here one of this process, which has "debian:12".
func ExampleStore_Pull() {
	ctx := context.Background()
	reference, stop := exampleRegistry()
	defer stop()
	dir, err := os.MkdirTemp("", "images-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	store, err := image.Open(filepath.Join(dir, "images")) // the driver's is STATE_DIR/images
	if err != nil {
		log.Fatal(err)
	}
	debian, err := store.Pull(ctx, reference, &image.PullOptions{Platform: "linux/amd64"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(debian.Platform, debian.Config.Cmd, debian.Config.Env)
	again, err := store.Get(debian.Digest)
	fmt.Println(again.Path == debian.Path, err)
	fmt.Println(store.Verify(ctx, reference))
	fmt.Println(store.Remove(ctx, reference))
	// Output:
	// linux/amd64 [bash] [LANG=C.UTF-8]
	// true <nil>
	// <nil>
	// <nil>
}

// An image of a directory.
func ExampleStore_Import() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "images-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	tree := filepath.Join(dir, "tree")
	if err := os.MkdirAll(filepath.Join(tree, "etc"), 0o755); err != nil {
		log.Fatal(err)
	}

	store, err := image.Open(filepath.Join(dir, "images"))
	if err != nil {
		log.Fatal(err)
	}
	made, err := store.Import(ctx, tree, "mine:1", &image.ImportOptions{Config: &image.Config{Cmd: []string{"/init"}}})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(made.References, made.Config.Cmd)
	pruned, err := store.Prune(ctx, func(i image.Image) bool { return len(i.References) > 0 })
	fmt.Println(len(pruned.Images), err)
	// Output:
	// [mine:1] [/init]
	// 0 <nil>
}

// exampleRegistry serves an image without files.
func exampleRegistry() (reference string, stop func()) {
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	reference = strings.TrimPrefix(server.URL, "http://") + "/debian:12"
	img, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{
		OS: "linux", Architecture: "amd64", RootFS: v1.RootFS{Type: "layers"}, Config: v1.Config{Cmd: []string{"bash"}, Env: []string{"LANG=C.UTF-8"}},
	})
	if err != nil {
		log.Fatal(err)
	}
	ref, err := name.ParseReference(reference)
	if err != nil {
		log.Fatal(err)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	defer transport.CloseIdleConnections()
	if err := remote.Write(ref, img, remote.WithTransport(transport), remote.WithAuth(authn.Anonymous)); err != nil {
		log.Fatal(err)
	}
	return reference, server.Close
}
