package runtimetest

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"

	microvm "github.com/tangle-network/microvm-runtime"
)

var drives = group{"drives", []testCase{
	{"are what was asked for", func(c *checker) {
		given := []microvm.Drive{{Path: c.disk("a")}, {Path: c.disk("b"), ReadOnly: true, Limit: &microvm.RateLimit{BytesPerSecond: 1 << 20, OpsPerSecond: 50, OpsBurst: 7}}}
		want := c.specWith(given...).Copy().Drives
		vm := c.createWith("one", given...)
		given[0].Path, given[1].Limit.OpsBurst = "/", 8 // the machine has a copy
		if got := c.info(vm).Spec.Drives; !reflect.DeepEqual(got, want) {
			c.Errorf("drives %+v, want %+v", got, want)
		}
		c.ok(vm.Start(c.ctx, nil))
		c.state(vm, microvm.StateRunning)
	}},
	{"a writable one is one machine's", func(c *checker) {
		drive := microvm.Drive{Path: c.disk("a")}
		first := c.createWith("first", drive)
		c.leavesNothing("a second", func() {
			_, err := c.rt.Create(c.ctx, "second", c.specWith(drive))
			c.is(err, microvm.ErrBusy)
			if !strings.Contains(err.Error(), first.UID()) || !strings.Contains(err.Error(), "first") {
				c.Errorf("error %q does not name the machine that has it", err)
			}
		})
		c.ok(first.Destroy(c.ctx))
		c.ok(c.createWith("second", drive).Start(c.ctx, nil))
	}},
	{"a read-only one is anybody's", func(c *checker) {
		drive := microvm.Drive{Path: c.disk("a"), ReadOnly: true}
		for _, name := range []string{"first", "second"} {
			c.ok(c.createWith(name, drive).Start(c.ctx, nil))
		}
	}},
	{"one of many at once gets it", func(c *checker) {
		drive := microvm.Drive{Path: c.disk("a")}
		var won atomic.Int32
		var calling sync.WaitGroup
		for i := range 8 {
			calling.Go(func() {
				if _, err := c.rt.Create(c.ctx, "machine-"+string(rune('a'+i)), c.specWith(drive)); err == nil {
					won.Add(1)
				}
			})
		}
		calling.Wait()
		if got := c.list(nil); won.Load() != 1 || len(got) != 1 {
			c.Errorf("%d have it, list %q", won.Load(), got)
		}
	}},
}}

// disk makes a raw disk of nothing.
func (c *checker) disk(name string) string {
	c.Helper()
	path := filepath.Join(c.TempDir(), name)
	c.ok(os.WriteFile(path, make([]byte, 1<<20), 0o600))
	return path
}

func (c *checker) specWith(drives ...microvm.Drive) microvm.Spec {
	spec := c.h.Spec.Copy()
	spec.Drives = drives
	return spec
}

func (c *checker) createWith(name string, drives ...microvm.Drive) *microvm.VM {
	c.Helper()
	vm, err := c.rt.Create(c.ctx, name, c.specWith(drives...))
	c.ok(err)
	return vm
}
