//go:build linux

// Package doctor says whether a host can run microVMs, and what to do where it can't.
//
// There are only three types: [Options] say what is looked at, a [Report] is a list of [Finding]s. Each finding has its evidence, and a remedy where one is due.
//
// # Caveats
//
// What can be tried is tried, such as making a VM, a TAP device, or a process in a cgroup of its own; the rest is read. What was made for that is gone when Run returns, and
// nothing else is changed, but that the kernel loads a module that it is asked for. Only Fix changes the host: see there.
package doctor

import (
	"context"

	"github.com/tangle-network/microvm-runtime/firecracker"
)

// Severity is how bad a finding is.
type Severity string

const (
	// OK is as it should be.
	OK Severity = "ok"
	// Warning works, with less than there could be.
	Warning Severity = "warning"
	// Error keeps machines from running.
	Error Severity = "error"
)

// Finding is the answer of one check.
type Finding struct {
	Check    string   `json:"check"`
	Severity Severity `json:"severity"`
	Evidence string   `json:"evidence"`         // What was seen.
	Remedy   string   `json:"remedy,omitempty"` // What to do. Empty with OK.
}

// Report is the answers of all checks, in order.
type Report []Finding

// Healthy says that no finding is an error.
func (r Report) Healthy() bool {
	for _, finding := range r {
		if finding.Severity == Error {
			return false
		}
	}
	return true
}

// Options say what is looked at.
type Options struct {
	// Driver is how the driver is to be opened: its binaries and directories are looked at.
	Driver firecracker.Options
	// StoreMiB is the size of the store that Fix makes, in MiB, at least 320. Optional: a half of what is free.
	StoreMiB int
}

// Run makes all checks. It ends early, with what it has, when ctx ends.
func Run(ctx context.Context, o Options) Report { return run(ctx, thisHost(), o) }

func run(ctx context.Context, h host, o Options) Report {
	driver := o.Driver.Defaults()
	var report Report
	for _, check := range checks {
		if ctx.Err() != nil {
			return report
		}
		report = append(report, check(ctx, h, driver)...)
	}
	return report
}

// checks are what is looked at, in order.
var checks = []func(context.Context, host, firecracker.Options) []Finding{
	checkLinux, checkPrivileges, checkKVM, checkBinaries, checkCgroups, checkDevices, checkKernel, checkAgent, checkImage, checkPrograms, checkDirectories, checkReflink, checkSpace, checkLimits,
	checkNetwork,
}

func ok(check, evidence string) Finding {
	return Finding{Check: check, Severity: OK, Evidence: evidence}
}

func warn(check, evidence, remedy string) Finding {
	return Finding{Check: check, Severity: Warning, Evidence: evidence, Remedy: remedy}
}

func fail(check, evidence, remedy string) Finding {
	return Finding{Check: check, Severity: Error, Evidence: evidence, Remedy: remedy}
}
