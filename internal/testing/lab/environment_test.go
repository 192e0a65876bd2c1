//go:build linux

package lab

import (
	"maps"
	"path/filepath"
	"slices"
	"testing"

	"github.com/tangle-network/microvm-runtime/internal/setup"
)

// TestGivenFirecracker: one that is not of the parts' disk is where the environment says, in files that are put there, under the name that its jailer insists on.
func TestGivenFirecracker(t *testing.T) {
	ours := setup.Parts{Cache: "/cache"}
	ours.Firecracker, ours.Jailer = stock("/cache")
	theirs := ours
	theirs.Firecracker, theirs.Jailer = "/release/firecracker-v1.13.0-x86_64", "/release/jailer-v1.13.0-x86_64"

	stockIn, _ := stock(Cache)
	if got := Inside(ours).Firecracker; got != stockIn {
		t.Errorf("ours is at %s, want %s", got, stockIn)
	}
	if files := Binaries(ours); len(files) != 0 {
		t.Errorf("files %q beside the disk that has all of them", files)
	}
	inside, files := Inside(theirs), Binaries(theirs)
	for path, from := range map[string]string{inside.Firecracker: theirs.Firecracker, inside.Jailer: theirs.Jailer} {
		name, err := filepath.Rel(Payload, path)
		if err != nil || files[name] != from {
			t.Errorf("%s is of %q among %q, want %s", path, files[name], slices.Sorted(maps.Keys(files)), from)
		}
	}
	if filepath.Base(inside.Firecracker) != "firecracker" {
		t.Errorf("a jailer refuses the name %s", inside.Firecracker)
	}
	if env := Environment(inside); !slices.Contains(env, "MICROVM_TEST_FIRECRACKER="+inside.Firecracker) || !slices.Contains(env, "MICROVM_JAILER_BIN="+inside.Jailer) {
		t.Errorf("environment %q", env)
	}
}
