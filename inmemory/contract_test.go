package inmemory_test

import (
	"maps"
	"strings"
	"testing"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/inmemory"
	"github.com/tangle-network/microvm-runtime/runtimetest"
)

// ends are labels of machines that end by themselves at once.
var ends = map[string]string{"ends": "at once"}

func TestContractInmemory(t *testing.T) {
	stores := map[*microvm.Runtime]*inmemory.Store{}
	open := func(t *testing.T, store *inmemory.Store) *microvm.Runtime {
		rt, control := inmemory.NewControlled(&inmemory.Options{Store: store})
		stores[rt] = store
		ended := make(chan struct{})
		events, err := rt.Watch(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			defer close(ended)
			for event, err := range events {
				if err == nil && event.Type == microvm.EventStarted && maps.Equal(event.Labels, ends) {
					control.End(event.UID, microvm.Exit{Reason: microvm.ReasonGuest})
				}
			}
		}()
		t.Cleanup(func() { rt.Close(); <-ended })
		return rt
	}
	runtimetest.Run(t, runtimetest.Harness{
		New:    func(t *testing.T) *microvm.Runtime { return open(t, &inmemory.Store{}) },
		Reopen: func(t *testing.T, rt *microvm.Runtime) *microvm.Runtime { return open(t, stores[rt]) },
		Spec:   microvm.Spec{Diskless: true, Kernel: "/kernel"},
		Ends:   &microvm.Spec{Diskless: true, Kernel: "/kernel", Labels: ends},
		Marker: strings.TrimSpace(inmemory.Marker),
	})
}
