//go:build linux

package firecracker_test

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tangle-network/microvm-runtime/firecracker"
	"github.com/tangle-network/microvm-runtime/internal/inventory"
	"github.com/tangle-network/microvm-runtime/internal/testing/leak"
	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
)

// TestLabExample: what the README shows works, and leaves nothing behind.
func TestLabExample(t *testing.T) {
	p := ring.Lab(t)
	dir := t.TempDir()
	options := firecracker.Options{StateDir: filepath.Join(dir, "state"), SocketDir: filepath.Join(dir, "run"), Slice: leak.Slice(filepath.Base(dir))}
	for name, value := range map[string]string{
		"MICROVM_FIRECRACKER_BIN": p.Firecracker, "MICROVM_JAILER_BIN": p.Jailer, "MICROVM_FIRECRACKER_KERNEL": p.Vmlinux, "MICROVM_KERNEL_MODULES": p.Modules,
		"MICROVM_AGENT_BIN": p.Agent, "MICROVM_STATE_DIR": options.StateDir, "MICROVM_SOCKET_DIR": options.SocketDir, "MICROVM_JAILER_CGROUP_PARENT": options.Slice,
	} {
		t.Setenv(name, value)
	}
	t.Cleanup(func() {
		if _, err := firecracker.Purge(context.Background(), options); err != nil { // t.Context has ended
			t.Error(err)
		}
	})
	for range 2 { // the name is free again
		if out, err := job(t.Context(), p.Base, "echo $((6 * 7))"); err != nil || string(out) != "42\n" {
			t.Fatalf("%q, %v", out, err)
		}
	}
	census, err := inventory.Take(inventory.Options{Under: dir, Slice: options.Slice})
	if err != nil {
		t.Fatal(err)
	}
	for _, item := range census {
		if strings.HasPrefix(item.Name, filepath.Join(options.SocketDir, "network")) { // slots stay made, for the next
			continue
		}
		if item.Kind == "process" || item.Kind == "mount" || item.Kind == "cgroup" {
			t.Errorf("left behind: %+v", item)
		}
	}
}
