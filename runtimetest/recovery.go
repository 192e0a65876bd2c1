package runtimetest

import (
	microvm "github.com/tangle-network/microvm-runtime"
)

var recoveries = group{"recoveries", []testCase{
	{"of nothing", func(c *checker) {
		if report, err := c.rt.Recover(c.ctx, nil); err != nil || len(report) != 0 {
			c.Errorf("report %+v, %v", report, err)
		}
	}},
	{"adopt what runs and leave the rest", func(c *checker) {
		runs, stopped := c.create("runs"), c.create("stopped")
		c.create("created")
		for _, vm := range []*microvm.VM{runs, stopped} {
			c.ok(vm.Start(c.ctx, nil))
		}
		_, err := stopped.Stop(c.ctx, &microvm.StopOptions{Force: true})
		c.ok(err)
		for _, dry := range []bool{true, false, false} {
			report, err := c.rt.Recover(c.ctx, &microvm.RecoverOptions{DryRun: dry})
			if err != nil || len(report) != 1 || report[0].Kind != microvm.ActionAdopted || report[0].UID != runs.UID() || report[0].Name != "runs" || len(report.Failed()) > 0 {
				c.Errorf("dry %t: report %+v, %v", dry, report, err)
			}
		}
		c.state(runs, microvm.StateRunning)
		c.state(stopped, microvm.StateStopped)
	}},
	{"by another runtime", func(c *checker) {
		vm := c.create("one")
		c.ok(vm.Start(c.ctx, nil))
		other := c.h.Reopen(c.T, c.rt)
		if report, err := other.Recover(c.ctx, nil); err != nil || len(report) != 1 || report[0].UID != vm.UID() {
			c.Errorf("report %+v, %v", report, err)
		}
		found, err := other.VM(c.ctx, "one")
		c.ok(err)
		_, err = found.Stop(c.ctx, &microvm.StopOptions{Force: true})
		c.ok(err)
		c.state(vm, microvm.StateStopped)
	}},
}}
