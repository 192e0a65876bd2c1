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
	// Parallel runs cases beside each other, as many as -test.parallel says: New, Reopen and Census are then called by several at a time, and a census is of one runtime alone.
	// Optional: one after the other.
	Parallel bool
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

// groups returns all cases.
func groups() []group {
	return []group{names, specs, drives, networks, updates, recoveries, states, ends, renames, finding, snapshots, archives, claims, events, consoles, connections, processes, contexts}
}

// Run runs all cases as subtests. It logs those that are left out, with the reason.
func Run(t *testing.T, h Harness) {
	known := map[string]bool{}
	for _, g := range groups() {
		for _, one := range g.cases {
			name := g.name + "/" + one.name
			known[name] = true
			if reason := h.leavesOut(g.name, name); reason != "" {
				t.Logf("left out: %s: %s", name, reason)
				continue
			}
			t.Run(name, func(t *testing.T) {
				if h.Parallel {
					t.Parallel()
				}
				ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
				defer cancel()
				one.run(&checker{T: t, h: h, rt: h.New(t), ctx: ctx})
			})
		}
	}
	for name, reason := range h.Except {
		if !known[name] || reason == "" {
			t.Errorf("Except: %q is no case, or has no reason", name)
		}
	}
}

// need is what a harness may lack.
type need struct {
	reason string // Why cases are left out without it.
	met    func(Harness) bool
}

var (
	aReopen = need{"the harness has no Reopen", func(h Harness) bool { return h.Reopen != nil }}
	anEnds  = need{"the harness has no Ends", func(h Harness) bool { return h.Ends != nil }}
)

// needs are the groups, and the cases, that not every harness can run.
var needs = map[string]need{
	"processes":                           aReopen,
	"recoveries/by another runtime":       aReopen,
	"ends/by itself":                      anEnds,
	"ends/starts again after its own end": anEnds,
	"events/an end by itself":             anEnds,
	"consoles/follow ends with the run":   anEnds,
}

// leavesOut returns why a case is not run, or "".
func (h Harness) leavesOut(group, name string) string {
	for _, of := range []string{group, name} {
		if n, ok := needs[of]; ok && !n.met(h) {
			return n.reason
		}
	}
	return h.Except[name]
}
