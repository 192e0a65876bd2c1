//go:build linux

package agent

import (
	"time"

	"golang.org/x/sys/unix"
)

// bootClock returns CLOCK_BOOTTIME: time since the system booted.
func bootClock() time.Duration {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &t) != nil {
		return 0
	}
	return time.Duration(t.Nano())
}
