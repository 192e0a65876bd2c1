//go:build linux

package lab

import (
	"fmt"
	"testing"
)

// TestPlaces: there are two labs where there are CPUs, memory and jobs for two, each with a CPU of its own, and there is always one.
func TestPlaces(t *testing.T) {
	const enough = mostLabs * placeMiB
	for name, c := range map[string]struct {
		cpus               []int
		availableMiB, jobs int
		want               string
	}{
		"two":                 {[]int{0, 1}, enough, 9, "[1 0]"},
		"more than are used":  {[]int{2, 5, 7, 9}, 9 * enough, 9, "[9 7]"},
		"one CPU":             {[]int{3}, enough, 9, "[3]"},
		"memory for one":      {[]int{0, 1}, enough - 1, 9, "[1]"},
		"memory for none":     {[]int{0, 1}, 0, 9, "[1]"},
		"one job":             {[]int{0, 1}, enough, 1, "[1]"},
		"nothing that is run": {[]int{0, 1}, enough, 0, "[1]"},
	} {
		if got := fmt.Sprint(choose(c.cpus, c.availableMiB, c.jobs)); got != c.want {
			t.Errorf("%s: CPUs %s, want %s", name, got, c.want)
		}
	}
}

func TestAvailableMemory(t *testing.T) {
	if got := availableMiB("MemTotal:       24683520 kB\nMemFree:  1024 kB\nMemAvailable:   12582912 kB\nBuffers: 1 kB\n"); got != 12288 {
		t.Errorf("%d MiB, want 12288", got)
	}
	if got := availableMiB("MemTotal:       24683520 kB\n"); got != 0 {
		t.Errorf("%d MiB where nothing is told", got)
	}
}
