//go:build linux

package firecracker

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/flock"
	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
	"github.com/tangle-network/microvm-runtime/internal/testing/tinyguest"
)

// TestRealLocksCanBeLeft: what another process holds for ever costs a call its context, and leaves nothing; an event that can't be told costs the event.
func TestRealLocksCanBeLeft(t *testing.T) {
	r := newRig(t, ring.Real(t), false, tinyguest.Program{})
	r.destroy(r.create("first")) // the store has the kernel
	before := r.census()
	for name, harmless := range map[string]bool{r.driver.state.Journal(): true, filepath.Join(r.options.StateDir, "slots", "lock"): false} {
		held, err := flock.Lock(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		if !harmless {
			r.cancelAt("create/slot:before", cancel)
		}
		created := make(chan error, 1)
		go func() {
			_, err := r.runtime.Create(ctx, "one", tiny)
			created <- err
		}()
		select {
		case err := <-created:
			if harmless && err != nil || !harmless && !errors.Is(err, context.Canceled) {
				t.Errorf("%s is held: create: %v", name, err)
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("%s is held: create can't be left", name)
		}
		cancel()
		r.setHook(nil)
		if vm, err := r.runtime.VM(t.Context(), "one"); err == nil {
			r.destroy(vm)
		} else if !errors.Is(err, microvm.ErrNotFound) || harmless {
			t.Error(err)
		}
		held.Close()
		r.unchanged(before)
		r.destroy(r.create("one"))
	}
}
