package runtimetest

import (
	"slices"
	"sync"

	microvm "github.com/tangle-network/microvm-runtime"
)

var claims = group{"claims", []testCase{
	{"a held machine is handed out", func(c *checker) {
		held := c.held("ready")
		if info := c.info(held); info.State != microvm.StatePaused || !info.Held {
			c.Errorf("held: %+v", info)
		}
		vm, _, err := c.rt.Claim(c.ctx, "ready", "job", nil)
		c.ok(err)
		if info := c.info(vm); vm.UID() != held.UID() || info.Name != "job" || info.State != microvm.StateRunning || info.Held {
			c.Errorf("claimed: %+v", info)
		}
		c.ok(vm.Pause(c.ctx))
		c.ok(vm.Resume(c.ctx))
		c.stop(vm)
		c.ok(vm.Start(c.ctx, nil))
	}},
	{"a held machine is nobody's", func(c *checker) {
		held := c.held("ready")
		c.is(held.Resume(c.ctx), microvm.ErrState)
		c.is(held.Pause(c.ctx), microvm.ErrState)
		c.is(held.Rename(c.ctx, "mine"), microvm.ErrState)
		_, err := held.Snapshot(c.ctx, "first", nil)
		c.is(err, microvm.ErrState)
		c.state(held, microvm.StatePaused)
		vm, _, err := c.rt.Claim(c.ctx, "ready", "job", nil)
		c.ok(err)
		c.snapshot(vm, "first", nil)
	}},
	{"only what is held is handed out", func(c *checker) {
		c.held("ready")
		c.leavesNothing("claims", func() {
			_, _, err := c.rt.Claim(c.ctx, "other", "job", nil)
			c.is(err, microvm.ErrNotFound)
			_, _, err = c.rt.Claim(c.ctx, "source", "job", nil)
			c.is(err, microvm.ErrState)
			_, _, err = c.rt.Claim(c.ctx, "ready", "source", nil)
			c.is(err, microvm.ErrExists)
			_, _, err = c.rt.Claim(c.ctx, "ready", "", nil)
			c.is(err, microvm.ErrInvalid)
			for _, o := range []microvm.ClaimOptions{{Hostname: "-a"}, {AgentTimeout: -1}, {Change: microvm.Change{DriveLimit: map[int]microvm.RateLimit{9: {}}}}, {Env: map[string]string{"A-B": "c"}}, {Secrets: map[string]string{"a/b": "c"}}} {
				_, _, err = c.rt.Claim(c.ctx, "ready", "job", &o)
				c.is(err, microvm.ErrInvalid)
			}
			c.is(c.rt.Discard(c.ctx, "source"), microvm.ErrState)
		})
		vm, _, err := c.rt.Claim(c.ctx, "ready", "job", nil)
		c.ok(err)
		c.is(c.rt.Discard(c.ctx, "job"), microvm.ErrState)
		c.state(vm, microvm.StateRunning)
	}},
	{"each is handed out once", func(c *checker) {
		c.held("ready")
		var claiming sync.WaitGroup
		errs := make([]error, 8)
		for i := range errs {
			claiming.Go(func() { _, _, errs[i] = c.rt.Claim(c.ctx, "ready", "job-"+string('a'+rune(i)), nil) })
		}
		claiming.Wait()
		got := 0
		for _, err := range errs {
			if err == nil {
				got++
			} else {
				c.is(err, microvm.ErrNotFound)
			}
		}
		if got != 1 {
			c.Errorf("%d of 8 got it", got)
		}
	}},
	{"a held machine is discarded", func(c *checker) {
		c.held("ready")
		c.ok(c.rt.Discard(c.ctx, "ready"))
		c.is(c.rt.Discard(c.ctx, "ready"), microvm.ErrNotFound)
		if got := c.list(nil); !slices.Equal(got, []string{"source"}) {
			c.Errorf("machines %q", got)
		}
	}},
	{"a held machine that has ended is not handed out", func(c *checker) {
		held := c.held("ready")
		exit, err := held.Stop(c.ctx, nil)
		c.ok(err)
		if exit.Reason != microvm.ReasonForced {
			c.Errorf("%s: its guest was not to go on for its end", exit.Reason)
		}
		c.state(held, microvm.StateStopped)
		_, _, err = c.rt.Claim(c.ctx, "ready", "job", nil)
		c.is(err, microvm.ErrState)
		c.ok(c.rt.Discard(c.ctx, "ready"))
	}},
}}

// held restores a machine that waits to be claimed, of a snapshot of one called source.
func (c *checker) held(name string) *microvm.VM {
	c.Helper()
	c.snapshot(c.in("source", microvm.StateRunning), "warm", nil)
	return c.restore("source/warm", name, &microvm.RestoreOptions{Hold: true})
}
