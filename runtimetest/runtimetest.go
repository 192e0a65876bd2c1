// Package runtimetest is the contract of package microvm's Driver as tests. Who writes a driver runs it against it.
//
//	func TestContract(t *testing.T) {
//		runtimetest.Run(t, runtimetest.Harness{New: …, Spec: …})
//	}
//
// There is only one type: a [Harness] says how to get a runtime, and what its machines can do.
//
// # Caveats
//
// Each case has a runtime of its own. Cases wait for what happens and assume nothing about how long it takes.
//
// Drives are files of the test's temporary directory: a driver that wants them on a certain file system must have its state there.
package runtimetest

import (
	"context"
	"slices"
	"testing"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
)

// Harness is what the cases need of a driver.
type Harness struct {
	// New returns a runtime without machines. It is closed, and its machines are removed, when the test ends.
	New func(t *testing.T) *microvm.Runtime
	// Reopen returns a second runtime on the same state, as another process would open it. Optional: cases that need it are left out.
	Reopen func(t *testing.T, rt *microvm.Runtime) *microvm.Runtime
	// Spec is a machine that boots, writes Marker to its console, and runs until it is ended.
	Spec microvm.Spec
	// Marker is a text without line end.
	Marker string
	// Ends is a machine that ends its run by itself at once. Optional: cases that need it are left out.
	Ends *microvm.Spec
	// Census tells, one a line, what there is on the host of a runtime's machines, with its files: cases compare it before and after what must leave nothing. Optional:
	// they look at List alone.
	Census func(t *testing.T, rt *microvm.Runtime) string
	// Except names cases that are left out, with the reason.
	Except map[string]string
}

// patience bounds what a case waits for.
const patience = 30 * time.Second

// grace keeps Stop short for guests that understand nothing.
const grace = 50 * time.Millisecond

type group struct {
	name  string
	cases []testCase
}

type testCase struct {
	name string
	run  func(c *checker)
}

// Run runs all cases as subtests.
func Run(t *testing.T, h Harness) {
	for _, g := range []group{names, specs, drives, states, ends, renames, finding, events, consoles, connections, processes, contexts} {
		for _, one := range g.cases {
			name := g.name + "/" + one.name
			if _, left := h.Except[name]; left || !h.can(g.name, one.name) {
				continue
			}
			t.Run(name, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
				defer cancel()
				one.run(&checker{T: t, h: h, rt: h.New(t), ctx: ctx})
			})
		}
	}
	for name, reason := range h.Except {
		if !exists(name) || reason == "" {
			t.Errorf("Except: %q is no case, or has no reason", name)
		}
	}
}

// needsEnds and needsReopen are the cases that a harness without these can't run.
var (
	needsEnds   = []string{"ends/by itself", "ends/starts again after its own end", "events/an end by itself", "consoles/follow ends with the run"}
	needsReopen = "processes"
)

func (h Harness) can(group, name string) bool {
	if h.Ends == nil && slices.Contains(needsEnds, group+"/"+name) {
		return false
	}
	return h.Reopen != nil || group != needsReopen
}

func exists(name string) bool {
	for _, g := range []group{names, specs, drives, states, ends, renames, finding, events, consoles, connections, processes, contexts} {
		for _, one := range g.cases {
			if g.name+"/"+one.name == name {
				return true
			}
		}
	}
	return false
}
