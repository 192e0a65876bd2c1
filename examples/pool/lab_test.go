//go:build linux

package main

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tangle-network/microvm-runtime/firecracker"
	"github.com/tangle-network/microvm-runtime/internal/testing/leak"
	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
)

func TestMain(m *testing.M) {
	firecracker.Helper()
	os.Exit(leak.Main(m))
}

// TestLabPool: each job has a machine of its own, with its own name, environment and ids; nothing is left of them.
func TestLabPool(t *testing.T) {
	p := ring.Lab(t)
	dir := t.TempDir()
	options := firecracker.Options{StateDir: filepath.Join(dir, "state"), SocketDir: filepath.Join(dir, "run"), Slice: leak.Slice(filepath.Base(dir))}
	for name, value := range map[string]string{
		"MICROVM_FIRECRACKER_BIN": p.Firecracker, "MICROVM_JAILER_BIN": p.Jailer, "MICROVM_FIRECRACKER_KERNEL": p.Vmlinux, "MICROVM_KERNEL_MODULES": p.Modules,
		"MICROVM_AGENT_BIN": p.Agent, "MICROVM_IMAGE": p.Base, "MICROVM_STATE_DIR": options.StateDir, "MICROVM_SOCKET_DIR": options.SocketDir, "MICROVM_JAILER_CGROUP_PARENT": options.Slice,
	} {
		t.Setenv(name, value)
	}
	t.Cleanup(func() {
		if purged, err := firecracker.Purge(context.Background(), options); err != nil || len(purged.Stays) > 0 { // t.Context has ended
			t.Errorf("%v, and %q stays", err, purged.Stays)
		}
	})
	const jobs = 8
	var said strings.Builder
	order := strings.Repeat("echo $JOB $(hostname) $(cat /run/microvm/generation) $(od -An -N8 -tx8 /dev/urandom)\n", jobs)
	if err := run(t.Context(), strings.NewReader(order), &said, 2); err != nil {
		t.Error(err)
	}
	t.Log(said.String())
	answers := regexp.MustCompile(`: (job-\d+-\d+) (job-\d+-\d+) ([a-z2-7]{12}) +([0-9a-f]{16}) \(had its machine after (.*)\)\n`).FindAllStringSubmatch(said.String(), -1)
	seen := map[string]bool{}
	var took []time.Duration
	for _, answer := range answers {
		if answer[1] != answer[2] {
			t.Errorf("job %s runs in a machine that calls itself %s", answer[1], answer[2])
		}
		for _, own := range answer[2:5] {
			seen[own] = true
		}
		after, err := time.ParseDuration(answer[5])
		if err != nil {
			t.Error(err)
		}
		took = append(took, after)
	}
	if len(answers) != jobs || len(seen) != 3*jobs {
		t.Fatalf("%d answers with %d names, generations and numbers, want %d with %d", len(answers), len(seen), jobs, 3*jobs)
	}
	slices.Sort(took)
	t.Logf("handout_agent %v at least, %v p50, %v at most, of %d at once from 2 that waited", took[0], took[jobs/2], took[jobs-1], jobs)
	if !strings.Contains(said.String(), "machines had waited") {
		t.Error("it does not say how the pool did")
	}
}
