//go:build linux

package image

import (
	"os"
	"testing"

	"github.com/tangle-network/microvm-runtime/internal/testing/leak"
)

// Child is what the test binary does when it is one more process; see childEnv.
var Child func(order string) int

// ChildEnv holds the order of a test binary that is one more process.
const ChildEnv = "MICROVM_TEST_CHILD"

func TestMain(m *testing.M) {
	if order := os.Getenv(ChildEnv); order != "" {
		os.Exit(Child(order))
	}
	os.Exit(leak.Main(m))
}
