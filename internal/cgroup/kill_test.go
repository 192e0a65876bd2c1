//go:build linux

package cgroup

import (
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
)

// The way of kernels without cgroup.kill.
func TestHostKillEach(t *testing.T) {
	ring.Host(t)
	if _, err := Root(); err != nil {
		t.Skip(err)
	}
	s, err := Open(fmt.Sprintf("/microvm-test-kill-%d.slice", os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Remove()
	l, err := s.NewLeaf("a")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Remove()
	in, out := exec.Command("/bin/sleep", "1000"), exec.Command("/bin/sleep", "1000")
	for _, cmd := range []*exec.Cmd{in, out} {
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
	}
	defer func() { out.Process.Kill(); out.Wait() }()
	if err := l.Add(in.Process.Pid); err != nil {
		t.Fatal(err)
	}
	if err := l.killEach(); err != nil {
		t.Fatal(err)
	}
	if in.Wait(); in.ProcessState.ExitCode() != -1 {
		t.Errorf("the one in the leaf: %v", in.ProcessState)
	}
	if err := l.killOne(out.Process.Pid); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", out.Process.Pid)); err != nil {
		t.Errorf("the one outside was hit: %v", err)
	}
}
