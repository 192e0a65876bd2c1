//go:build linux

package agent

import (
	"fmt"
	"os"
	"testing"

	"github.com/tangle-network/microvm-runtime/internal/testing/leak"
)

// firstHelper makes the test's program what adopts orphans, as the first process of a system does.
const firstHelper = "MICROVM_TEST_FIRST"

func TestMain(m *testing.M) {
	if os.Getenv(firstHelper) != "" {
		if err := first(); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(leak.Main(m))
}
