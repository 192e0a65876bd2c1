package inmemory_test

import (
	"strings"
	"testing"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/inmemory"
	"github.com/tangle-network/microvm-runtime/runtimetest"
)

func TestContractInmemory(t *testing.T) {
	runtimetest.Run(t, runtimetest.Harness{
		New: func(t *testing.T) *microvm.Runtime {
			rt := inmemory.New(nil)
			t.Cleanup(func() { rt.Close() })
			return rt
		},
		Spec:   microvm.Spec{Diskless: true, Kernel: "/kernel"},
		Marker: strings.TrimSpace(inmemory.Marker),
	})
}
