//go:build linux

package snapstore

import (
	"os"
	"testing"

	"github.com/tangle-network/microvm-runtime/internal/testing/leak"
)

func TestMain(m *testing.M) {
	if order := os.Getenv(orderVariable); order != "" {
		os.Exit(obey(order))
	}
	os.Exit(leak.Main(m))
}
