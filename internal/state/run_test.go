//go:build linux

package state

import (
	"sync"
	"testing"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/vmm"
)

// TestARunIsReadAtOneMoment: what is known of a run is of the same run, and of no time before it was committed, however it is replaced while it is read.
func TestARunIsReadAtOneMoment(t *testing.T) {
	d := newDir(t)
	lock := begunMachine(t, d)
	uid := lock.UID()
	end := make(chan struct{})
	var writing sync.WaitGroup
	writing.Go(func() {
		if err := rerun(lock, end); err != nil {
			t.Error(err)
		}
	})
	defer writing.Wait()
	defer close(end)
	seen := map[bool]int{}
	for begin := time.Now(); seen[true] < 30 || seen[false] < 30; {
		run, err := d.ReadRun(uid)
		if err != nil {
			t.Fatal(err)
		}
		if run == nil {
			continue
		}
		seen[run.Committed]++
		if run.Committed && (run.Process == nil || !run.Held || len(run.Timeline) != run.Process.PID) {
			t.Fatalf("committed, and %+v of %+v", run.Timeline, run)
		}
		if time.Since(begin) > time.Minute {
			t.Fatalf("seen %v", seen)
		}
	}
}

// rerun begins, changes, commits and ends one run after the other. Each has a process, and is held, before it is committed; its timeline is as long as its process's number.
func rerun(lock *Lock, end chan struct{}) error {
	for pid := 1; ; pid = pid%5 + 1 {
		select {
		case <-end:
			return nil
		default:
		}
		began := Run{State: microvm.StateRunning, Started: time.Now()}
		named := began
		named.Process = &vmm.Identity{PID: pid}
		held := named
		held.Held = true
		for _, do := range []func() error{
			lock.RemoveRun, func() error { return lock.WriteRun(began) }, func() error { return lock.WriteRun(named) }, func() error { return lock.WriteRun(held) },
			func() error { return lock.Commit(make([]microvm.Mark, pid)) },
		} {
			if err := do(); err != nil {
				return err
			}
		}
	}
}
