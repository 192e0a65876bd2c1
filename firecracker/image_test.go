//go:build linux

package firecracker

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/image"
	"github.com/tangle-network/microvm-runtime/internal/testing/fakevmm"
)

// TestImageByName: the base of an image is shared by a link, and lives on when the image goes; what its maker says is told.
func TestImageByName(t *testing.T) {
	o := fakeOptions(t, fakevmm.Faults{})
	rt := mustNew(t, o)
	if _, err := rt.Create(t.Context(), "none", microvm.Spec{Image: "none:1"}); !errors.Is(err, microvm.ErrNotFound) || !strings.Contains(err.Error(), "microvm image pull") {
		t.Errorf("an image that is not there: %v", err)
	}
	store, err := image.Open(filepath.Join(o.StateDir, "images"))
	if err != nil {
		t.Fatal(err)
	}
	tree := t.TempDir()
	if err := os.WriteFile(filepath.Join(tree, "file"), []byte("content"), 0o644); err != nil {
		t.Fatal(err)
	}
	made, err := store.Import(t.Context(), tree, "app:1", &image.ImportOptions{Config: &image.Config{Cmd: []string{"serve"}, User: "nobody"}})
	if err != nil {
		t.Fatal(err)
	}
	initrd := filepath.Join(t.TempDir(), "initrd")
	if err := os.WriteFile(initrd, []byte("initrd"), 0o600); err != nil {
		t.Fatal(err)
	}
	vm, err := rt.Create(t.Context(), "machine", microvm.Spec{Image: "app:1", Initrd: initrd, LayerMiB: 16})
	if err != nil {
		t.Fatal(err)
	}
	info, err := vm.Info(t.Context())
	if err != nil || info.Spec.Image != "app:1" || info.Image == nil || info.Image.User != "nobody" || len(info.Image.Cmd) != 1 || !info.Agent {
		t.Errorf("info %+v, %v", info, err)
	}
	base, err := os.Stat(made.Path)
	if err != nil || base.Sys().(*syscall.Stat_t).Nlink != 2 {
		t.Errorf("the base has other links than the image's and the machine's: %+v, %v", base, err)
	}
	if err := os.RemoveAll(filepath.Dir(made.Path)); err != nil { // whatever becomes of the image
		t.Fatal(err)
	}
	if err := vm.Start(t.Context(), &microvm.StartOptions{NoWait: true}); err != nil {
		t.Errorf("after the image went: %v", err)
	}
	if err := vm.Destroy(t.Context()); err != nil {
		t.Error(err)
	}
}
