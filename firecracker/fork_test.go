//go:build linux

package firecracker

import (
	"context"
	"errors"
	"testing"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
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

// snapshotsLeft fails the test when there are others.
func (r *rig) snapshotsLeft(want int) {
	r.t.Helper()
	infos, err := r.runtime.Snapshots(within(r.t), nil)
	var names []string
	for _, info := range infos {
		names = append(names, info.Name)
	}
	if err != nil || len(names) != want {
		r.t.Errorf("snapshots %q, %v; want %d", names, err, want)
	}
}

// TestRealForkNeedsItsSnapshot to the end, also when all of its machines end while it makes more; and then no longer.
// TestRealEphemeralUnderDiff: a snapshot that was to go with machines stays for a diff that is over it, and goes with that.
func TestRealEphemeralUnderDiff(t *testing.T) {
	counting(t, ring.Real(t), func(t *testing.T, r *rig) {
		vm := r.create("one")
		r.start(vm)
		before := r.census()
		for what, remove := range map[string]func() error{
			"deleted": func() error { return r.runtime.DeleteSnapshot(within(t), "one/diff") },
			"pruned": func() error {
				_, _, err := r.runtime.PruneSnapshots(within(t), &microvm.PruneOptions{OlderThan: 1})
				return err
			},
		} {
			forked, err := vm.Fork(within(t), []string{"two"}, nil)
			if err != nil || forked[0].Err != nil {
				t.Fatal(what, err, forked)
			}
			if info := r.snapshot(vm, "diff", &microvm.SnapshotOptions{Diff: true}); info.Kind != microvm.SnapshotDiff {
				t.Fatalf("%s: it is %s", what, info.Kind)
			}
			r.destroy(forked[0].VM)
			r.goesOn(r.restore("one/diff", "three", nil), "one/diff")
			r.destroy(r.named("three"))
			if err := remove(); err != nil {
				t.Errorf("%s: %v", what, err)
			}
			r.unchanged(before)
		}
		r.destroy(vm)
	})
}

func TestRealForkNeedsItsSnapshot(t *testing.T) {
	counting(t, ring.Real(t), func(t *testing.T, r *rig) {
		vm := r.create("one")
		r.start(vm)
		short, err := microvm.New(&shortLived{driver: r.driver}).VM(within(t), "one")
		if err != nil {
			t.Fatal(err)
		}
		forked, err := short.Fork(within(t), []string{"a", "b", "c"}, &microvm.RestoreOptions{Parallel: 1})
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range forked {
			if f.Err != nil {
				t.Fatalf("%s: %v", f.Name, f.Err)
			}
		}
		r.snapshotsLeft(1)
		r.destroy(forked[2].VM)
		r.snapshotsLeft(0)

		short, err = microvm.New(&shortLived{driver: r.driver}).VM(within(t), "one")
		if err != nil {
			t.Fatal(err)
		}
		forked, err = short.Fork(within(t), []string{"a", "one"}, &microvm.RestoreOptions{Parallel: 1})
		if err != nil || forked[0].Err != nil || !errors.Is(forked[1].Err, microvm.ErrExists) {
			t.Errorf("%+v, %v", forked, err)
		}
		r.snapshotsLeft(0) // the one machine has ended before the other could not be made
		r.destroy(vm)
	})
}
