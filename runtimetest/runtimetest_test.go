package runtimetest_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/inmemory"
	"github.com/tangle-network/microvm-runtime/runtimetest"
)

// childEnv makes the test binary one that runs the contract on a harness with a fault: its value says which.
const childEnv = "RUNTIMETEST_FAULT"

// TestFaultsAreFound: a runtime that leaves something behind fails, and a harness that gives no reason for what it leaves out; the same without the fault passes, also one
// whose cases run beside each other.
func TestFaultsAreFound(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for fault, says := range map[string]string{
		"none":      "",
		"parallel":  "",
		"leaves":    "value 0: it was left: thing 2",
		"unfounded": `Except: "specs/bad VCPUs" is no case, or has no reason`,
		"unknown":   `Except: "specs/bad Colour" is no case, or has no reason`,
	} {
		cmd := exec.Command(self, "-test.run=^TestHarness$/^specs$", "-test.parallel=2")
		if fault == "unfounded" || fault == "unknown" {
			cmd.Args[1] = "-test.run=^TestHarness$/^none$"
		}
		cmd.Env = append(os.Environ(), childEnv+"="+fault)
		out, err := cmd.CombinedOutput()
		if exit := (*exec.ExitError)(nil); (says != "") != errors.As(err, &exit) || !strings.Contains(string(out), says) {
			t.Errorf("%s: %v, want one that says %q:\n%s", fault, err, says, out)
		}
	}
}

// TestHarness runs the contract on a harness with the fault that the environment names.
func TestHarness(t *testing.T) {
	fault := os.Getenv(childEnv)
	if fault == "" {
		t.Log("it is for TestFaultsAreFound; the contract of inmemory is inmemory's test")
		return
	}
	var things atomic.Int64
	h := runtimetest.Harness{
		New: func(t *testing.T) *microvm.Runtime {
			rt := inmemory.New(nil)
			t.Cleanup(func() { rt.Close() })
			return rt
		},
		Spec:   microvm.Spec{Diskless: true, Kernel: "/kernel"},
		Marker: strings.TrimSpace(inmemory.Marker),
		Census: func(*testing.T, *microvm.Runtime) string { return fmt.Sprintln("thing", things.Load()) },
	}
	switch fault {
	case "parallel":
		h.Parallel, h.New = true, meeting(h.New)
	case "leaves":
		h.Census = func(*testing.T, *microvm.Runtime) string { return fmt.Sprintln("thing", things.Add(1)) }
	case "unfounded":
		h.Except = map[string]string{"specs/bad VCPUs": ""}
	case "unknown":
		h.Except = map[string]string{"specs/bad Colour": "none has one"}
	}
	runtimetest.Run(t, h)
}

// meeting returns a New whose first two calls wait for each other: no case ends before another has begun.
func meeting(newRuntime func(*testing.T) *microvm.Runtime) func(*testing.T) *microvm.Runtime {
	var calls atomic.Int64
	both := make(chan struct{})
	return func(t *testing.T) *microvm.Runtime {
		if calls.Add(1) == 2 {
			close(both)
		}
		select {
		case <-both:
		case <-time.After(time.Minute):
			t.Fatal("no other case has begun")
		}
		return newRuntime(t)
	}
}
