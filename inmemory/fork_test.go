package inmemory

import (
	"context"
	"errors"
	"testing"

	microvm "github.com/tangle-network/microvm-runtime"
)

// shortLived is a driver each of whose restored machines has ended before the next is restored.
type shortLived struct {
	*driver
	last string
}

func (d *shortLived) Restore(ctx context.Context, snapshot, name string, o microvm.RestoreOptions) (string, microvm.Evidence, error) {
	if d.last != "" {
		if err := d.Destroy(ctx, d.last); err != nil {
			return "", nil, err
		}
	}
	uid, evidence, err := d.driver.Restore(ctx, snapshot, name, o)
	d.last = uid
	return uid, evidence, err
}

// TestForkNeedsItsSnapshot to the end, also when all of its machines end while it makes more; and then no longer.
func TestForkNeedsItsSnapshot(t *testing.T) {
	_, control := NewControlled(nil)
	rt := microvm.New(&shortLived{driver: control.d})
	vm, err := rt.Create(t.Context(), "one", microvm.Spec{Diskless: true})
	if err == nil {
		err = vm.Start(t.Context(), nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	forked, err := vm.Fork(t.Context(), []string{"a", "b", "c", "one"}, &microvm.RestoreOptions{Parallel: 1})
	if err != nil || len(forked) != 4 {
		t.Fatal(forked, err)
	}
	for _, f := range forked[:3] {
		if f.Err != nil {
			t.Errorf("%s: %v", f.Name, f.Err)
		}
	}
	if !errors.Is(forked[3].Err, microvm.ErrExists) {
		t.Error(forked[3].Err)
	}
	if left, err := rt.Snapshots(t.Context(), nil); err != nil || len(left) > 0 { // c has ended before the last could not be made
		t.Errorf("%+v, %v", left, err)
	}
}
