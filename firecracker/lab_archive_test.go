//go:build linux

package firecracker

import (
	"context"
	"crypto/ed25519"
	"io"
	"strings"
	"testing"

	microvm "github.com/tangle-network/microvm-runtime"
)

// TestLabExport: a Linux guest is exported as it is imported elsewhere, and goes on there with its disk, its memory and its agent, when all that it came from is gone.
func TestLabExport(t *testing.T) {
	r := newLabRig(t, false)
	vm := r.create(microvm.Spec{MemoryMiB: 160, TrackDirty: true})
	r.start(vm)
	sh(t, vm, "echo on the disk >/kept; sync; mkdir -p /run/there; echo in memory >/run/there/kept")
	info := r.snapshot(vm, "warm")
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	there := newLabRigOn(t, true, nil, func(o *Options) { o.Kernel, o.Image, o.Agent = "/nowhere", "/nowhere", "/nowhere" })
	reader, writer := io.Pipe()
	go func() {
		writer.CloseWithError(r.runtime.ExportSnapshot(context.Background(), info.UID, writer, &microvm.ExportOptions{Key: private}))
	}()
	imported, err := there.runtime.ImportSnapshot(t.Context(), "that/one", reader, &microvm.ImportOptions{Trusted: []ed25519.PublicKey{public}})
	if err != nil {
		t.Fatal(err)
	}
	if !imported.Agent || imported.Problem != "" {
		t.Errorf("imported: %+v", imported)
	}
	if err := r.runtime.Close(); err != nil {
		t.Error(err)
	}
	if _, err := Purge(t.Context(), r.options); err != nil {
		t.Fatal(err)
	}
	clone := there.fork("that/one", "clone")[0]
	if got := sh(t, clone, "cat /kept /run/there/kept; hostname; ls /usr/bin | wc -l"); !strings.HasPrefix(got, "on the disk\nin memory\nclone\n") || strings.HasSuffix(got, "\n0") {
		t.Errorf("it has %q", got)
	}
	if _, err := clone.Stop(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	there.start(clone)
	if got := sh(t, clone, "cat /kept"); strings.TrimSpace(got) != "on the disk" {
		t.Errorf("booted, it has %q", got)
	}
	there.destroy(clone)
}
