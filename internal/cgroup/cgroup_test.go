//go:build linux

package cgroup_test

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"testing"

	"github.com/tangle-network/microvm-runtime/internal/cgroup"
	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
	"github.com/tangle-network/microvm-runtime/internal/vmm"
)

func slice(t *testing.T) *cgroup.Slice {
	t.Helper()
	ring.Host(t)
	s, err := cgroup.Open(fmt.Sprintf("/microvm-test-%d.slice", os.Getpid()))
	if errors.Is(err, cgroup.ErrUnsupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Remove(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func leaf(t *testing.T, s *cgroup.Slice, name string) *cgroup.Leaf {
	t.Helper()
	l, err := s.NewLeaf(name)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func sleeper(t *testing.T, l *cgroup.Leaf) *vmm.Process {
	t.Helper()
	p, err := vmm.Start(vmm.Command{Path: "/bin/sleep", Args: []string{"1000"}, Cgroup: l})
	if err != nil {
		t.Fatal(err)
	}
	if pids, err := l.Procs(); err != nil || !slices.Equal(pids, []int{p.Identity().PID}) {
		t.Errorf("leaf holds %v, %v; want %d", pids, err, p.Identity().PID)
	}
	return p
}

func TestHostLeafGroupsAndKills(t *testing.T) {
	s := slice(t)
	l := leaf(t, s, "a")
	p := sleeper(t, l)
	if _, err := s.NewLeaf("a"); !errors.Is(err, syscall.EBUSY) {
		t.Errorf("fresh leaf in place of a busy one: %v", err)
	}
	adopted, err := vmm.Open(p.Identity())
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := p.Identity()
	elsewhere.Cgroup += "x"
	if _, err := vmm.Open(elsewhere); !errors.Is(err, vmm.ErrMoved) {
		t.Errorf("adopted out of another leaf: %v", err)
	}
	if err := l.Kill(); err != nil {
		t.Fatal(err)
	}
	if status, err := p.Wait(t.Context()); err != nil || status.Signal != int(syscall.SIGKILL) {
		t.Errorf("%+v, %v", status, err)
	}
	if err := errors.Join(adopted.Close(), p.Close(), l.Remove(), l.Kill(), l.Remove()); err != nil {
		t.Error(err)
	}
}

// On some kernels nothing can be born in a leaf that was killed. Start must give a live process in it all the same.
func TestHostStartInKilledLeaf(t *testing.T) {
	s := slice(t)
	for name, prepare := range map[string]func(*cgroup.Leaf) *cgroup.Leaf{
		"fresh":             func(l *cgroup.Leaf) *cgroup.Leaf { return l },
		"killed when empty": func(l *cgroup.Leaf) *cgroup.Leaf { l.Kill(); return l },
		"killed when busy": func(l *cgroup.Leaf) *cgroup.Leaf {
			p := sleeper(t, l)
			l.Kill()
			<-p.Done()
			p.Close()
			return l
		},
		"killed and made anew": func(l *cgroup.Leaf) *cgroup.Leaf {
			l.Kill()
			l.Close()
			return leaf(t, s, "b")
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := prepare(leaf(t, s, "b"))
			p := sleeper(t, l)
			select {
			case <-p.Done():
				t.Error("it was born dead")
			default:
			}
			if err := p.Kill(); err != nil {
				t.Fatal(err)
			}
			<-p.Done()
			if err := errors.Join(p.Close(), l.Remove()); err != nil {
				t.Error(err)
			}
		})
	}
}
