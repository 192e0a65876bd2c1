//go:build linux

package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/tangle-network/microvm-runtime/firecracker"
)

func checkCgroups(ctx context.Context, h host, o firecracker.Options) []Finding {
	const check = "cgroup v2"
	root, err := h.cgroups()
	if err != nil {
		return []Finding{warn(check, err.Error(), "mount cgroup v2: without it limits, and the killing of all that a VMM started, are not there")}
	}
	text, err := os.ReadFile(filepath.Join(root, "cgroup.controllers"))
	has := strings.Fields(string(text))
	evidence := fmt.Sprintf("%s, controllers: %s", root, strings.Join(has, " "))
	if err != nil {
		evidence = err.Error()
	}
	findings := []Finding{ok(check, evidence)}
	for _, controller := range []string{"cpu", "memory", "pids", "io"} {
		if !slices.Contains(has, controller) {
			findings[0] = warn(check, evidence, "boot with systemd.unified_cgroup_hierarchy=1, to have cpu, memory, pids and io there")
			break
		}
	}
	parent, crowded := nearestCgroup(root, o.Slice)
	if crowded != "" {
		findings = append(findings, warn("slice", crowded+" has processes of its own, so that what is below it gets no controllers", "set a slice without, such as /microvm.slice: MICROVM_JAILER_CGROUP_PARENT"))
	} else {
		findings = append(findings, ok("slice", o.Slice))
	}
	if h.uid != 0 {
		return findings
	}
	return append(findings, checkBirth(ctx, h, parent))
}

// nearestCgroup returns the slice, or the nearest above it that is there, and which on the way has processes of its own. The hierarchy's root may have.
func nearestCgroup(root, slice string) (nearest, crowded string) {
	nearest = root
	for name := range strings.SplitSeq(strings.Trim(slice, "/"), "/") {
		next := filepath.Join(nearest, name)
		procs, err := os.ReadFile(filepath.Join(next, "cgroup.procs"))
		if err != nil {
			return nearest, crowded
		}
		nearest = next
		if len(procs) > 0 {
			crowded = next
		}
	}
	return nearest, crowded
}

// errStillborn is a child that was killed before its first instruction.
var errStillborn = errors.New("a process that was to be born in a cgroup was killed at once")

func checkBirth(ctx context.Context, h host, parent string) Finding {
	const check = "cgroup birth"
	switch err := h.birth(ctx, parent); {
	case errors.Is(err, errStillborn):
		return warn(check, err.Error(), "use another kernel, or a cgroup above that was never killed; until then VMMs are started outside of their cgroups and moved")
	case err != nil:
		return fail(check, err.Error(), "let this user make cgroups below "+parent+" and start processes in them, or set another slice: MICROVM_JAILER_CGROUP_PARENT")
	}
	return ok(check, "a process was born in a cgroup below "+parent)
}

// birth starts a trivial program in a cgroup of its own: on some kernels it is killed at once.
func birth(ctx context.Context, parent string) (err error) {
	const patience = 10 * time.Second
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	program, err := exec.LookPath("true")
	if err != nil {
		return err
	}
	path, err := os.MkdirTemp(parent, "doctor-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(path)) }()
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	cmd := exec.CommandContext(ctx, program)
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	err = cmd.Run()
	if cmd.ProcessState != nil && ctx.Err() == nil && cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL {
		return fmt.Errorf("%w: %s", errStillborn, path)
	}
	return err
}
