//go:build linux

package netns

import (
	"os"
	"testing"

	"github.com/tangle-network/microvm-runtime/internal/testing/leak"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(killedEnv); path != "" {
		killed(path)
	}
	os.Exit(leak.Main(m))
}
