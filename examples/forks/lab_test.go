//go:build linux

package main

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/tangle-network/microvm-runtime/firecracker"
	"github.com/tangle-network/microvm-runtime/internal/testing/leak"
	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
)

func TestMain(m *testing.M) {
	firecracker.Helper()
	os.Exit(leak.Main(m))
}

// TestLabForks: each of twenty answers its own order, and draws numbers that no other draws.
func TestLabForks(t *testing.T) {
	p := ring.Lab(t)
	dir := t.TempDir()
	options := firecracker.Options{StateDir: filepath.Join(dir, "state"), SocketDir: filepath.Join(dir, "run"), Slice: leak.Slice(filepath.Base(dir))}
	for name, value := range map[string]string{
		"MICROVM_FIRECRACKER_BIN": p.Firecracker, "MICROVM_JAILER_BIN": p.Jailer, "MICROVM_FIRECRACKER_KERNEL": p.Vmlinux, "MICROVM_KERNEL_MODULES": p.Modules,
		"MICROVM_AGENT_BIN": p.Agent, "MICROVM_IMAGE": p.Base, "MICROVM_STATE_DIR": options.StateDir, "MICROVM_SOCKET_DIR": options.SocketDir, "MICROVM_JAILER_CGROUP_PARENT": options.Slice,
	} {
		t.Setenv(name, value)
	}
	t.Cleanup(func() {
		if purged, err := firecracker.Purge(context.Background(), options); err != nil || len(purged.Stays) > 0 { // t.Context has ended
			t.Errorf("%v, and %q stays", err, purged.Stays)
		}
	})
	const n = 20
	var said strings.Builder
	if err := run(t.Context(), &said, n); err != nil {
		t.Error(err)
	}
	t.Log(said.String())
	answers := regexp.MustCompile(`forks-\d+-(\d+) order (\d+): .* drew ([0-9a-f]{16}) and ([0-9a-f]{16})\n`).FindAllStringSubmatch(said.String(), -1)
	drawn := map[string]bool{}
	for _, answer := range answers {
		if answer[1] != answer[2] {
			t.Errorf("machine %s answers order %s", answer[1], answer[2])
		}
		drawn[answer[3]], drawn[answer[4]] = true, true
	}
	if len(answers) != n || len(drawn) != 2*n {
		t.Errorf("%d machines answer with %d numbers, want %d with %d", len(answers), len(drawn), n, 2*n)
	}
}
