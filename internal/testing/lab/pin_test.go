//go:build linux

package lab

import (
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestPinned: what is started has one CPU, and whoever started it has all that it had.
func TestPinned(t *testing.T) {
	var before, after unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		t.Fatal(err)
	}
	cpus, err := usableCPUs()
	if err != nil || len(cpus) != before.Count() {
		t.Fatalf("CPUs %v of %d: %v", cpus, before.Count(), err)
	}
	for _, cpu := range cpus {
		var out strings.Builder
		cmd := exec.Command("sed", "-n", `s/^Cpus_allowed_list:\s*//p`, "/proc/self/status")
		cmd.Stdout = &out
		if err := startPinned(cmd, cpu); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Fatal(err)
		}
		if got := strings.TrimSpace(out.String()); got != strconv.Itoa(cpu) {
			t.Errorf("it runs on %q, want %d", got, cpu)
		}
	}
	if err := unix.SchedGetaffinity(0, &after); err != nil || after != before {
		t.Errorf("this process has %v, and had %v: %v", after, before, err)
	}
	if err := startPinned(exec.Command("/nonexistent"), cpus[0]); err == nil {
		t.Error("what there is not was started")
	}
}
