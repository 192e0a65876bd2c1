//go:build linux

package doctor

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/tangle-network/microvm-runtime/firecracker"
)

// What a host should have at least.
const (
	minMajor, minMinor = 5, 15
	minPIDs            = 32768
	minFiles           = 4096
)

func checkLinux(_ context.Context, h host, _ firecracker.Options) []Finding {
	remedy := fmt.Sprintf("use Linux %d.%d or later", minMajor, minMinor)
	release, err := h.release()
	if err != nil {
		return []Finding{fail("linux", err.Error(), remedy)}
	}
	var major, minor int
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil || major < minMajor || major == minMajor && minor < minMinor {
		return []Finding{fail("linux", "Linux "+release, remedy)}
	}
	return []Finding{ok("linux", "Linux "+release)}
}

func checkPrivileges(_ context.Context, h host, o firecracker.Options) []Finding {
	const check = "privileges"
	switch {
	case h.uid == 0:
		return []Finding{ok(check, "root")}
	case o.Bare:
		return []Finding{warn(check, fmt.Sprintf("user %d, machines are bare", h.uid), "run as root, with jails, for other people's code")}
	}
	return []Finding{fail(check, fmt.Sprintf("user %d", h.uid), "run as root: the jailer needs it")}
}

func checkLimits(_ context.Context, h host, _ firecracker.Options) []Finding {
	return []Finding{checkPIDs(h), checkFiles(h)}
}

func checkPIDs(h host) Finding {
	const check, remedy = "pids", "sysctl kernel.pid_max=4194304: a machine takes four to five"
	text, err := os.ReadFile(h.path("/proc/sys/kernel/pid_max"))
	if err != nil {
		return warn(check, err.Error(), remedy)
	}
	evidence := "kernel.pid_max is " + strings.TrimSpace(string(text))
	if most, err := strconv.Atoi(strings.TrimSpace(string(text))); err != nil || most < minPIDs {
		return warn(check, evidence, remedy)
	}
	return ok(check, evidence)
}

func checkFiles(h host) Finding {
	const check, remedy = "files", "raise it (ulimit -n, LimitNOFILE= of a unit): this process holds up to six descriptors for a machine that it watches"
	limit, err := h.mostFiles()
	if err != nil {
		return warn(check, err.Error(), remedy)
	}
	evidence := fmt.Sprintf("RLIMIT_NOFILE is %d, at most %d", limit.Cur, limit.Max)
	if limit.Max < minFiles {
		return warn(check, evidence, remedy)
	}
	return ok(check, evidence)
}
