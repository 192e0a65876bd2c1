package runtimetest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	microvm "github.com/tangle-network/microvm-runtime"
)

var names = group{"names", []testCase{
	{"good ones", func(c *checker) {
		for _, name := range []string{"a", "Z9", "a.b", "a_b", "a-b", "_a", "0", strings.Repeat("n", 64), "run", "lock", "names"} {
			vm := c.create(name)
			if got := c.info(vm).Name; got != name {
				c.Errorf("name %q became %q", name, got)
			}
		}
	}},
	{"bad ones leave nothing", func(c *checker) {
		for _, name := range []string{"", ".", "..", ".a", "-a", "a/b", "a b", "a\x00b", "a\nb", "ä", "a:b", "a*", strings.Repeat("n", 65), "../a", "a\xff"} {
			c.leavesNothing(fmt.Sprintf("name %q", name), func() {
				_, err := c.rt.Create(c.ctx, name, c.h.Spec)
				c.is(err, microvm.ErrInvalid)
				if field := (*microvm.FieldError)(nil); !errors.As(err, &field) || field.Field != "name" {
					c.Errorf("name %q: error %v does not name the field", name, err)
				}
			})
		}
		c.create("one") // and a good one works
	}},
	{"similar ones never meet", func(c *checker) {
		dot, under := c.create("a.b"), c.create("a_b")
		c.ok(dot.Destroy(c.ctx))
		c.state(under, microvm.StateCreated)
		if got := c.list(nil); !slices.Equal(got, []string{"a_b"}) {
			c.Errorf("list %q", got)
		}
	}},
	{"case matters", func(c *checker) {
		if c.create("a").UID() == c.create("A").UID() {
			c.Error("one machine for two names")
		}
	}},
	{"taken", func(c *checker) {
		c.create("one")
		c.leavesNothing("a second", func() {
			_, err := c.rt.Create(c.ctx, "one", c.h.Spec)
			c.is(err, microvm.ErrExists)
		})
	}},
	{"one of many at once wins", func(c *checker) {
		const callers = 8
		var wins, losses int
		var mu sync.Mutex
		var calling sync.WaitGroup
		for range callers {
			calling.Go(func() {
				_, err := c.rt.Create(c.ctx, "one", c.h.Spec)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					wins++
				case errors.Is(err, microvm.ErrExists):
					losses++
				default:
					c.Error(err)
				}
			})
		}
		calling.Wait()
		if wins != 1 || losses != callers-1 {
			c.Errorf("%d win and %d lose of %d", wins, losses, callers)
		}
		if got := c.list(nil); !slices.Equal(got, []string{"one"}) {
			c.Errorf("list %q", got)
		}
	}},
	{"free again after destroy", func(c *checker) {
		old := c.create("one")
		c.ok(old.Destroy(c.ctx))
		vm := c.create("one")
		if vm.UID() == old.UID() {
			c.Error("the uid is used again")
		}
		_, err := old.Info(c.ctx)
		c.is(err, microvm.ErrNotFound)
	}},
	{"one that looks like another's uid", func(c *checker) {
		first := c.create("first")
		second := c.create(first.UID())
		found, err := c.rt.VM(c.ctx, first.UID())
		c.ok(err)
		if found.UID() != second.UID() {
			c.Error("a name does not come before a uid")
		}
		c.state(first, microvm.StateCreated)
	}},
}}

var finding = group{"finding", []testCase{
	{"by name and by uid", func(c *checker) {
		vm := c.create("one")
		for _, ref := range []string{"one", vm.UID()} {
			found, err := c.rt.VM(c.ctx, ref)
			c.ok(err)
			if found.UID() != vm.UID() {
				c.Errorf("%q found %s, want %s", ref, found.UID(), vm.UID())
			}
		}
	}},
	{"nobody", func(c *checker) {
		for _, ref := range []string{"nobody", "", "../x", "aaaaaaaaaaaa", "a\x00"} {
			_, err := c.rt.VM(c.ctx, ref)
			c.is(err, microvm.ErrNotFound)
		}
	}},
	{"list is sorted by name", func(c *checker) {
		for _, name := range []string{"c", "a", "B", "b"} {
			c.create(name)
		}
		if got := c.list(nil); !slices.Equal(got, []string{"B", "a", "b", "c"}) {
			c.Errorf("list %q", got)
		}
	}},
	{"list of nothing", func(c *checker) {
		if got := c.list(nil); len(got) != 0 {
			c.Errorf("list %q", got)
		}
	}},
	{"filter by state", func(c *checker) {
		c.in("created", microvm.StateCreated)
		c.in("running", microvm.StateRunning)
		c.in("stopped", microvm.StateStopped)
		got := c.list(&microvm.Filter{States: []microvm.State{microvm.StateRunning, microvm.StateStopped}})
		if !slices.Equal(got, []string{"running", "stopped"}) {
			c.Errorf("list %q", got)
		}
	}},
	{"filter by labels", func(c *checker) {
		for _, l := range []struct{ name, tier, zone string }{{"x", "gold", "1"}, {"y", "gold", "2"}, {"z", "tin", "1"}} {
			spec := c.h.Spec
			spec.Labels = map[string]string{"tier": l.tier, "zone": l.zone}
			_, err := c.rt.Create(c.ctx, l.name, spec)
			c.ok(err)
		}
		got := c.list(&microvm.Filter{Labels: map[string]string{"tier": "gold", "zone": "1"}})
		if !slices.Equal(got, []string{"x"}) {
			c.Errorf("list %q", got)
		}
		if got := c.list(&microvm.Filter{Labels: map[string]string{"other": ""}}); len(got) != 0 {
			c.Errorf("list %q of a label that nobody has", got)
		}
	}},
	{"info has the resolved spec", func(c *checker) {
		spec := c.h.Spec
		spec.VCPUs, spec.MemoryMiB = 0, 0
		spec.Labels = map[string]string{"k": "v ä"}
		vm, err := c.rt.Create(c.ctx, "one", spec)
		c.ok(err)
		info := c.info(vm)
		if info.Spec.VCPUs < 1 || info.Spec.MemoryMiB < 1 || info.Spec.Labels["k"] != "v ä" || info.Created.IsZero() || info.UID != vm.UID() {
			c.Errorf("info %+v", info)
		}
	}},
	{"info is a copy", func(c *checker) {
		spec := c.h.Spec
		spec.Labels = map[string]string{"k": "v"}
		vm, err := c.rt.Create(c.ctx, "one", spec)
		c.ok(err)
		c.info(vm).Spec.Labels["k"] = "changed"
		spec.Labels["k"] = "changed"
		if got := c.info(vm).Spec.Labels["k"]; got != "v" {
			c.Errorf("label %q", got)
		}
	}},
}}
