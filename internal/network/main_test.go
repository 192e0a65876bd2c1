//go:build linux

package network

import (
	"os"
	"testing"

	"github.com/tangle-network/microvm-runtime/internal/testing/leak"
)

func TestMain(m *testing.M) {
	if text := os.Getenv(orderEnv); text != "" {
		obey(text)
	}
	os.Exit(leak.Main(m))
}
