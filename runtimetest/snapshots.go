package runtimetest

import (
	"context"
	"fmt"
	"slices"
	"strings"

	microvm "github.com/tangle-network/microvm-runtime"
)

var snapshots = group{"snapshots", []testCase{
	{"of what runs and of what is paused", func(c *checker) {
		for _, state := range []microvm.State{microvm.StateRunning, microvm.StatePaused} {
			vm := c.in("of-"+string(state), state)
			info := c.snapshot(vm, "first", &microvm.SnapshotOptions{Labels: map[string]string{"k": "v"}})
			c.state(vm, state)
			if info.Name != "of-"+string(state)+"/first" || info.Kind != microvm.SnapshotFull || info.Machine != vm.UID() || info.Labels["k"] != "v" || info.Created.IsZero() || info.Problem != "" {
				c.Errorf("snapshot %+v", info)
			}
			for _, ref := range []string{info.Name, info.UID} {
				if found, err := c.rt.Snapshot(c.ctx, ref); err != nil || found.UID != info.UID || found.Spec.MemoryMiB != info.Spec.MemoryMiB {
					c.Errorf("%s: %+v, %v", ref, found, err)
				}
			}
			c.ok(c.rt.VerifySnapshot(c.ctx, info.Name))
		}
		if got := c.snapshots(nil); !slices.Equal(got, []string{"of-paused/first", "of-running/first"}) {
			c.Errorf("snapshots %q", got)
		}
		if got := c.snapshots(&microvm.SnapshotFilter{Labels: map[string]string{"k": "w"}}); len(got) > 0 {
			c.Errorf("with another label: %q", got)
		}
	}},
	{"of nothing that runs", func(c *checker) {
		for _, state := range []microvm.State{microvm.StateCreated, microvm.StateStopped} {
			vm := c.in(string(state), state)
			_, err := vm.Snapshot(c.ctx, "first", nil)
			c.is(err, microvm.ErrState)
		}
		_, err := c.in("one", microvm.StateRunning).Snapshot(c.ctx, "a/b", nil)
		c.is(err, microvm.ErrInvalid)
		_, err = c.rt.Snapshot(c.ctx, "one/first")
		c.is(err, microvm.ErrNotFound)
	}},
	{"a name is taken until it is deleted", func(c *checker) {
		vm := c.in("one", microvm.StateRunning)
		c.snapshot(vm, "first", nil)
		c.leavesNothing("a second of the name", func() {
			_, err := vm.Snapshot(c.ctx, "first", nil)
			c.is(err, microvm.ErrExists)
		})
		c.ok(vm.Destroy(c.ctx))
		c.ok(c.rt.DeleteSnapshot(c.ctx, "one/first"))
		c.is(c.rt.DeleteSnapshot(c.ctx, "one/first"), microvm.ErrNotFound)
		c.snapshot(c.in("one", microvm.StateRunning), "first", nil)
	}},
	{"restore", func(c *checker) {
		vm := c.in("one", microvm.StateRunning)
		info := c.snapshot(vm, "first", nil)
		clone := c.restore("one/first", "two", &microvm.RestoreOptions{Labels: map[string]string{"a": "b"}})
		c.state(clone, microvm.StateRunning)
		if got := c.info(clone); got.Name != "two" || got.UID == vm.UID() || got.Spec.Labels["a"] != "b" || got.Spec.MemoryMiB != info.Spec.MemoryMiB || got.Started.IsZero() {
			c.Errorf("restored: %+v", got)
		}
		c.leavesNothing("under a name that is taken", func() {
			_, _, err := c.rt.Restore(c.ctx, "one/first", "one", nil)
			c.is(err, microvm.ErrExists)
		})
		_, _, err := c.rt.Restore(c.ctx, "one/second", "three", nil)
		c.is(err, microvm.ErrNotFound)
		paused := c.restore(info.UID, "three", &microvm.RestoreOptions{Paused: true})
		c.state(paused, microvm.StatePaused)
		c.ok(paused.Resume(c.ctx))
		c.stop(clone)
		c.state(clone, microvm.StateStopped)
		c.ok(clone.Start(c.ctx, nil))
		c.state(vm, microvm.StateRunning)
	}},
	{"restore nothing that makes no sense", func(c *checker) {
		c.snapshot(c.in("one", microvm.StateRunning), "first", nil)
		had := c.info(c.vm("one")).Network != nil
		for i, o := range []microvm.RestoreOptions{{Backend: "nonsense"}, {Hostname: "-a"}, {Labels: map[string]string{"": ""}}, {Network: &microvm.Network{None: had}}, {AgentTimeout: -1}, {Parallel: -1}, {Env: map[string]string{"": "a"}}, {Secrets: map[string]string{"../a": "b"}}} {
			c.leavesNothing(fmt.Sprint("options ", i), func() {
				_, _, err := c.rt.Restore(c.ctx, "one/first", "two", &o)
				c.is(err, microvm.ErrInvalid)
			})
		}
		c.restore("one/first", "two", nil)
	}},
	{"delete not what is needed", func(c *checker) {
		vm := c.in("one", microvm.StateRunning)
		c.snapshot(vm, "first", nil)
		clone := c.restore("one/first", "two", nil)
		err := c.rt.DeleteSnapshot(c.ctx, "one/first")
		c.is(err, microvm.ErrBusy)
		if !strings.Contains(err.Error(), "two") {
			c.Errorf("%v does not name the machine", err)
		}
		c.stop(clone)
		c.ok(c.rt.DeleteSnapshot(c.ctx, "one/first"))
	}},
	{"diffs", func(c *checker) {
		spec := c.h.Spec
		spec.TrackDirty = true
		vm, err := c.rt.Create(c.ctx, "one", spec)
		c.ok(err)
		c.ok(vm.Start(c.ctx, nil))
		diff := &microvm.SnapshotOptions{Diff: true}
		first, second := c.snapshot(vm, "first", diff), c.snapshot(vm, "second", diff)
		if first.Kind != microvm.SnapshotFull || second.Kind != microvm.SnapshotDiff || second.Parent != first.UID {
			c.Errorf("kinds %s, %s over %s", first.Kind, second.Kind, second.Parent)
		}
		c.is(c.rt.DeleteSnapshot(c.ctx, "one/first"), microvm.ErrBusy)
		c.ok(c.restore("one/second", "two", nil).Destroy(c.ctx))
		c.ok(c.rt.FlattenSnapshot(c.ctx, "one/second"))
		c.ok(c.rt.DeleteSnapshot(c.ctx, "one/first"))
		c.ok(c.restore("one/second", "two", nil).Destroy(c.ctx))
		third := c.snapshot(vm, "third", diff)
		c.ok(c.rt.DeleteSnapshot(c.ctx, "one/third"))
		fourth := c.snapshot(vm, "fourth", diff) // what it would be over is gone
		if third.Kind != microvm.SnapshotDiff || fourth.Kind != microvm.SnapshotFull {
			c.Errorf("kinds %s, %s", third.Kind, fourth.Kind)
		}
		_, err = c.in("untracked", microvm.StateRunning).Snapshot(c.ctx, "first", diff)
		c.is(err, microvm.ErrUnsupported)
	}},
	{"fork a snapshot", func(c *checker) {
		c.snapshot(c.in("one", microvm.StateRunning), "first", nil)
		c.create("taken")
		forked, err := c.rt.Fork(c.ctx, "one/first", []string{"a", "taken", "b"}, &microvm.RestoreOptions{Parallel: 2})
		c.ok(err)
		for i, name := range []string{"a", "taken", "b"} {
			if forked[i].Name != name || (forked[i].Err != nil) != (name == "taken") || (forked[i].VM == nil) != (name == "taken") {
				c.Errorf("%s: %+v", name, forked[i])
			}
		}
		c.is(forked[1].Err, microvm.ErrExists)
		_, err = c.rt.Fork(c.ctx, "one/first", []string{"c", "c"}, nil)
		c.is(err, microvm.ErrInvalid)
		_, err = c.rt.Fork(c.ctx, "one/other", []string{"c"}, nil)
		c.is(err, microvm.ErrNotFound)
		if got := c.list(nil); !slices.Equal(got, []string{"a", "b", "one", "taken"}) {
			c.Errorf("machines %q", got)
		}
	}},
	{"fork a machine", func(c *checker) {
		vm := c.in("one", microvm.StateRunning)
		forked, err := vm.Fork(c.ctx, []string{"a", "b"}, nil)
		c.ok(err)
		for _, f := range forked {
			c.ok(f.Err)
			c.state(f.VM, microvm.StateRunning)
		}
		c.state(vm, microvm.StateRunning)
		c.stop(forked[0].VM)
		if got := c.snapshots(nil); len(got) != 1 {
			c.Errorf("while one runs there are snapshots %q", got)
		}
		c.ok(forked[1].VM.Destroy(c.ctx))
		if got := c.snapshots(nil); len(got) > 0 {
			c.Errorf("after the last there are snapshots %q", got)
		}
	}},
	{"a context that has ended", func(c *checker) {
		vm := c.in("one", microvm.StateRunning)
		c.snapshot(vm, "first", nil)
		ended, cancel := context.WithCancel(c.ctx)
		cancel()
		c.leavesNothing("snapshot and restore", func() {
			_, err := vm.Snapshot(ended, "second", nil)
			c.is(err, context.Canceled)
			_, _, err = c.rt.Restore(ended, "one/first", "two", nil)
			c.is(err, context.Canceled)
		})
		c.state(vm, microvm.StateRunning)
	}},
}}

func (c *checker) snapshot(vm *microvm.VM, name string, o *microvm.SnapshotOptions) microvm.SnapshotInfo {
	c.Helper()
	info, err := vm.Snapshot(c.ctx, name, o)
	c.ok(err)
	return info
}

func (c *checker) restore(ref, name string, o *microvm.RestoreOptions) *microvm.VM {
	c.Helper()
	vm, _, err := c.rt.Restore(c.ctx, ref, name, o)
	c.ok(err)
	return vm
}

func (c *checker) vm(ref string) *microvm.VM {
	c.Helper()
	vm, err := c.rt.VM(c.ctx, ref)
	c.ok(err)
	return vm
}

// snapshots returns the names of the snapshots that a filter chooses.
func (c *checker) snapshots(filter *microvm.SnapshotFilter) (names []string) {
	c.Helper()
	infos, err := c.rt.Snapshots(c.ctx, filter)
	c.ok(err)
	for _, info := range infos {
		names = append(names, info.Name)
	}
	return names
}
