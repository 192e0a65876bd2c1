//go:build linux

package leak

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tangle-network/microvm-runtime/internal/inventory"
)

// TestHoldings: each kind of thing is seen while it is there, and only then.
func TestHoldings(t *testing.T) {
	dir := t.TempDir()
	take := func() inventory.Census {
		census, err := holdings(dir)
		if err != nil {
			t.Fatal(err)
		}
		return census
	}
	for kind, begin := range map[string]func() (end func()){
		"file": func() func() {
			path := filepath.Join(dir, "file")
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			return func() { os.Remove(path) }
		},
		"descriptor": func() func() {
			f, err := os.Open("/etc/passwd")
			if err != nil {
				t.Fatal(err)
			}
			return func() { f.Close() }
		},
		"child": func() func() {
			cmd := exec.Command("sleep", "1000")
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			return func() {
				cmd.Process.Kill()
				cmd.Wait()
			}
		},
	} {
		before := take()
		end := begin()
		added := inventory.Diff(before, take()).String()
		end()
		if !strings.Contains(added, "+ "+kind+" ") {
			t.Errorf("%s is not seen: %q", kind, added)
		}
		if left := inventory.Diff(before, take()); len(left.Added) > 0 {
			t.Errorf("%s is seen when it is gone: %s", kind, left)
		}
	}
}
