//go:build linux

package snapstore

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/record"
)

// TestOldManifests: what programs of each version have written is read as it was meant.
func TestOldManifests(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("testdata", "manifest-1.json"))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), manifestFile)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	var m Manifest
	if err := record.Read(path, Version, &m); err != nil {
		t.Fatal(err)
	}
	if m.UID != "3wgijidvmnea" || m.Name != "one/second" || m.Kind != microvm.SnapshotDiff || m.Parent != "qtmpgxlk6amu" || m.Layout != 1 || m.Firecracker != "1.12.1" || m.Agent ||
		m.CPU.Vendor != "AuthenticAMD" || len(m.CPU.Flags) != 2 || m.Spec.MemoryMiB != 128 || !m.Spec.TrackDirty || m.Shared.Kernel != "/state/store/files/kernel" ||
		m.Files[Memory].Data != 1<<20 || m.Files[Memory].Size != 128<<20 || m.Files[State].Name != State || m.Labels["k"] != "v" || m.Stood != 42*time.Millisecond || m.Copied != 7 || !m.whole() {
		t.Errorf("%+v", m)
	}
}
