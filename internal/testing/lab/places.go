//go:build linux

package lab

import (
	"fmt"
	"os"
	"strings"
)

const (
	// mostLabs is how many run at a time.
	mostLabs = 2
	// placeMiB is what a lab takes of the machine's memory: the lab's own, code that was translated (tb-size), and what its disks have in the page cache.
	placeMiB = memoryMiB + 512 + 1024
)

// places returns the CPU of each lab that is to run, the machine's last first: there is no more than one lab on a CPU, and for a job.
func places(jobs int) ([]int, error) {
	cpus, err := usableCPUs()
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return nil, fmt.Errorf("how much memory there is: %w", err)
	}
	return choose(cpus, availableMiB(string(text)), jobs), nil
}

// choose has the first lab on the last CPU whatever memory there is.
func choose(cpus []int, availableMiB, jobs int) []int {
	n := max(1, min(len(cpus), mostLabs, availableMiB/placeMiB, jobs))
	chosen := make([]int, 0, n)
	for i := range n {
		chosen = append(chosen, cpus[len(cpus)-1-i])
	}
	return chosen
}

// availableMiB reads /proc/meminfo: what can be had without swapping. Nothing where it isn't told.
func availableMiB(meminfo string) int {
	for line := range strings.Lines(meminfo) {
		var kib int
		if n, _ := fmt.Sscanf(line, "MemAvailable: %d kB", &kib); n == 1 {
			return kib >> 10
		}
	}
	return 0
}
