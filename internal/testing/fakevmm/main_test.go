//go:build linux

package fakevmm

import (
	"os"
	"testing"

	"github.com/tangle-network/microvm-runtime/internal/testing/leak"
)

func TestMain(m *testing.M) {
	if Invoked() {
		Main()
	}
	os.Exit(leak.Main(m))
}
