//go:build linux

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/setup"
)

const (
	readyBoots   = 15
	readyLimit   = 1.25
	readyTimeout = 15 * time.Minute
)

// agentReady takes the guest's own boot clock when its agent is ready, against the same of a busybox init that loads the same modules. Real guests boot in the lab where the
// host can't run them; see command agentready.
func agentReady(ctx context.Context, _ setup.Parts) ([]figure, error) {
	dir, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	program := filepath.Join(dir, "agentready")
	build := inModule(ctx, "go", "build", "-o", program, "./internal/testing/cmd/agentready")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, out)
	}
	run := inModule(ctx, "go", "run", "./internal/testing/lab/cmd/labrun", "-timeout", readyTimeout.String(), program, "-n", strconv.Itoa(readyBoots))
	run.Stderr = os.Stderr
	out, err := run.Output()
	if err != nil {
		return nil, fmt.Errorf("%w\n%s", err, out)
	}
	var boots struct{ Agent, Busybox []float64 }
	if err := json.Unmarshal(out, &boots); err != nil {
		return nil, fmt.Errorf("%w in %q", err, out)
	}
	f := newFigure("agent_ready", seconds(boots.Agent), "a busybox init", seconds(boots.Busybox))
	f.Limit = readyLimit
	return []figure{f}, nil
}

// inModule returns a command that works in the library's module, above this one.
func inModule(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = ".."
	return cmd
}

func seconds(samples []float64) []time.Duration {
	durations := make([]time.Duration, len(samples))
	for i, s := range samples {
		durations[i] = time.Duration(s * float64(time.Second))
	}
	return durations
}
