//go:build linux

package firecracker

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/helper"
	"github.com/tangle-network/microvm-runtime/internal/pager"
	"github.com/tangle-network/microvm-runtime/internal/snapstore"
	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
	"github.com/tangle-network/microvm-runtime/internal/testing/tinyguest"
	"github.com/tangle-network/microvm-runtime/internal/unix"
)

var pageByPage = microvm.RestoreOptions{Backend: microvm.MemoryUFFD}

// warm makes the snapshot one/warm of a counting machine, and returns its uid.
func (r *rig) warm() string {
	r.t.Helper()
	vm := r.create("one")
	r.start(vm)
	r.pause(vm)
	defer r.destroy(vm)
	return r.snapshot(vm, "warm", nil).UID
}

func (r *rig) stats(vm *microvm.VM) microvm.MemoryStats {
	r.t.Helper()
	stats, err := vm.Stats(within(r.t))
	if err != nil || stats.Memory == nil {
		r.t.Fatalf("%+v, %v", stats, err)
	}
	return *stats.Memory
}

// runsOnce restores a machine page by page, lets it go on once a working set is there, if there is to be one, until it has counted through all of its pages, and returns what was served.
func (r *rig) runsOnce(name string, prefetched bool) microvm.MemoryStats {
	r.t.Helper()
	vm := r.restore("one/warm", name, &microvm.RestoreOptions{Backend: microvm.MemoryUFFD, Paused: true})
	for ctx := within(r.t); prefetched && r.stats(vm).Prefetch == 0; time.Sleep(time.Millisecond) {
		if ctx.Err() != nil {
			r.t.Fatalf("nothing is prefetched: %+v", r.stats(vm))
		}
	}
	if err := vm.Resume(within(r.t)); err != nil {
		r.t.Fatal(err)
	}
	r.goesOn(vm, "one/warm")
	stats := r.stats(vm)
	r.destroy(vm)
	return stats
}

// TestRealWorkingSet: the first machine of a snapshot says what the next ones ask for, which is there before they do.
func TestRealWorkingSet(t *testing.T) {
	counting(t, ring.Real(t), func(t *testing.T, r *rig) {
		uid := r.warm()
		verify := func() {
			if err := r.runtime.VerifySnapshot(within(t), "one/warm"); err != nil {
				t.Error(err)
			}
		}
		verify()
		before := r.census()
		set := r.driver.snaps.WorkingSet(uid)
		if exists(set) {
			t.Error("there is a working set before anybody has worked")
		}
		first := r.runsOnce("two", false)
		if first.Prefetched != 0 || first.Faults < tinyguest.CountPages || first.Copied < tinyguest.CountPages || first.P50 <= 0 || first.P99 < first.P50 || first.PageSize != 4096 || first.Pages != 128<<8 {
			t.Errorf("the first: %+v", first)
		}
		good := *must(os.ReadFile(set))
		second := r.runsOnce("three", true)
		if second.Prefetched < tinyguest.CountPages/2 || second.Prefetched+second.Copied < tinyguest.CountPages || second.Faults >= first.Faults/2 || second.Prefetch <= 0 {
			t.Errorf("the second: %+v after %+v", second, first)
		}
		if err := os.WriteFile(set, good[:len(good)/2], 0o600); err != nil {
			t.Fatal(err)
		}
		if third := r.runsOnce("four", false); third.Prefetched != 0 {
			t.Errorf("with a damaged set: %+v", third)
		}
		if again := r.runsOnce("five", true); again.Prefetched < tinyguest.CountPages/2 {
			t.Errorf("it was not made anew: %+v", again)
		}
		verify()
		if err := os.Remove(set); err != nil {
			t.Error(err)
		}
		r.unchanged(before)
		if err := r.runtime.DeleteSnapshot(within(t), "one/warm"); err != nil {
			t.Error(err)
		}
	})
}

// memoryFile opens a snapshot's memory until the test ends.
func (r *rig) memoryFile(uid string) *os.File {
	r.t.Helper()
	manifest := *must(r.driver.snaps.Read(uid))
	memory := *must(os.Open(r.driver.snaps.Path(&manifest, snapstore.Memory)))
	r.t.Cleanup(func() { memory.Close() })
	return memory
}

// counted returns what says how many of the pages that a machine counts in are in the host's cache.
func (r *rig) counted(uid string) func() int {
	memory := r.memoryFile(uid)
	return func() int { return *must(unix.Cached(memory, 32<<20, tinyguest.CountPages*4096)) }
}

// forgetting returns what takes a snapshot's memory out of the host's cache; no machine may have it mapped.
func (r *rig) forgetting(uid string) func() {
	memory, counted := r.memoryFile(uid), r.counted(uid)
	return func() {
		r.t.Helper()
		if err := errors.Join(memory.Sync(), unix.DropCache(memory)); err != nil {
			r.t.Fatal(err)
		}
		if counted() > 0 {
			r.t.Skip("the file system keeps what is dropped: it is in memory")
		}
	}
}

// isRead waits until all pages that a machine counts in are in the host's cache.
func (r *rig) isRead(counted func() int) {
	r.t.Helper()
	for ctx := within(r.t); counted() < tinyguest.CountPages; time.Sleep(time.Millisecond) {
		if ctx.Err() != nil {
			r.t.Errorf("%d pages are read", counted())
			return
		}
	}
}

// TestRealReadAheadOfWaiting: a VMM that waited has the working set read when it is taken, as it is then.
func TestRealReadAheadOfWaiting(t *testing.T) {
	stocking(t, 1, func(t *testing.T, r *rig) {
		uid := *must(r.driver.snaps.Lookup("one/warm"))
		if err := os.RemoveAll(r.driver.snaps.WorkingSet(uid)); err != nil {
			t.Fatal(err)
		}
		r.destroy(r.restore("one/warm", "first", &microvm.RestoreOptions{Paused: true}))
		waiting := r.waiting() // there was no working set when it was made
		vm := r.restore("one/warm", "two", &microvm.RestoreOptions{Backend: microvm.MemoryUFFD})
		r.goesOn(vm, "one/warm")
		r.destroy(vm)
		counted := r.counted(uid)
		r.forgetting(uid)()
		loads := false
		r.setHook(func(point string) error {
			if point == "load/vmm:before" { // later the next that waits would have it read
				loads = true
				r.isRead(counted)
			}
			return nil
		})
		vm = r.restore("one/warm", "three", &microvm.RestoreOptions{Paused: true})
		r.setHook(nil)
		if pid := r.info(vm).PID; !slices.Contains(waiting, pid) {
			t.Errorf("VMM %d is none of %v, which waited", pid, waiting)
		}
		if !loads {
			t.Error("it was not loaded")
		}
		r.destroy(vm)
	})
}

// TestRealReadAhead: a machine whose memory is mapped has the working set read before its guest asks for it.
func TestRealReadAhead(t *testing.T) {
	counting(t, ring.Real(t), func(t *testing.T, r *rig) {
		uid := r.warm()
		r.runsOnce("two", false)
		set, counted, forget := r.driver.snaps.WorkingSet(uid), r.counted(uid), r.forgetting(uid)
		forget()
		paused := &microvm.RestoreOptions{Paused: true}
		vm := r.restore("one/warm", "three", paused)
		r.isRead(counted)
		ctx := within(t)
		if stats, err := vm.Stats(ctx); err != nil || stats.Memory != nil {
			t.Errorf("no helper serves it: %+v, %v", stats.Memory, err)
		}
		r.destroy(vm)
		if err := os.Remove(set); err != nil {
			t.Error(err)
		}
		forget()
		vm = r.restore("one/warm", "four", paused)
		if n := counted(); n >= tinyguest.CountPages {
			t.Errorf("without a working set %d pages are read", n)
		}
		r.destroy(vm)
	})
}

// killPager kills the helper that serves a machine's memory.
func (r *rig) killPager(vm *microvm.VM) {
	r.t.Helper()
	r.killHelper(vm, pager.Kind(nil).Name)
}

// killHelper kills a helper of a machine's memory.
func (r *rig) killHelper(vm *microvm.VM, kind string) {
	r.t.Helper()
	handle, err := helper.Find(r.driver.pagerDir(vm.UID()), kind)
	if err != nil {
		r.t.Fatal(err)
	}
	defer handle.Close()
	if err := handle.Kill(within(r.t)); err != nil {
		r.t.Fatal(err)
	}
}

// endedWithPager fails the test unless a machine ends, at once, because nobody serves its memory.
func (r *rig) endedWithPager(vm *microvm.VM) {
	r.t.Helper()
	exit, err := vm.Wait(within(r.t))
	if err != nil || exit.Reason != microvm.ReasonCrashed || !strings.Contains(strings.Join(exit.Evidence, "\n"), "its pager has ended") {
		r.t.Errorf("it has ended with %+v, %v", exit, err)
	}
}

// sameAs returns a machine as a driver that was opened anew knows it.
func (r *rig) sameAs(vm *microvm.VM) *microvm.VM {
	r.t.Helper()
	again, err := r.runtime.VM(within(r.t), vm.UID())
	if err != nil {
		r.t.Fatal(err)
	}
	return again
}

// TestRealPagerLossEnds: a machine that is to end with its pager does, while a driver lives, when none does, and, once one comes back, when the watcher was killed too. One that was restored to go on
// goes on, whatever the option says later.
func TestRealPagerLossEnds(t *testing.T) {
	counting(t, ring.Real(t), func(t *testing.T, r *rig) {
		r.warm()
		goesOn := r.restore("one/warm", "two", &pageByPage)
		r.options.PagerLoss = PagerEnd
		r.reopen()
		r.recover()
		r.killPager(goesOn)
		r.pagerServes(goesOn)

		driven, watched, alone := r.restore("one/warm", "three", &pageByPage), r.restore("one/warm", "four", &pageByPage), r.restore("one/warm", "five", &pageByPage)
		r.letters(driven, 2)
		r.killHelper(driven, pager.WatchKind().Name) // another follows
		r.killPager(driven)
		r.endedWithPager(driven)

		pid := r.info(watched).PID
		if err := r.runtime.Close(); err != nil {
			t.Fatal(err)
		}
		r.killPager(watched)
		for ctx := within(t); processRuns(pid); time.Sleep(time.Millisecond) {
			if ctx.Err() != nil {
				t.Fatal("nobody ends it")
			}
		}
		r.killHelper(alone, pager.WatchKind().Name)
		r.killPager(alone)
		r.options.PagerLoss = PagerRestart // which is not for these
		r.reopen()
		r.recover()
		goesOn, driven, watched, alone = r.sameAs(goesOn), r.sameAs(driven), r.sameAs(watched), r.sameAs(alone)
		r.endedWithPager(watched)
		r.endedWithPager(alone)
		r.letters(goesOn, len(r.said(goesOn))+3)
		for _, vm := range []*microvm.VM{goesOn, driven, watched, alone} {
			r.destroy(vm)
		}
	})
}

func (r *rig) recover() {
	r.t.Helper()
	if report, err := r.runtime.Recover(within(r.t), nil); err != nil || len(report.Failed()) > 0 {
		r.t.Errorf("recover: %v, %+v", err, report)
	}
}

// processRuns says whether a process runs, and is not only waited for.
func processRuns(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(text), ") Z ")
}

// TestRealPagerGoesWithItsRestore: a restore that fails once its helpers live leaves none of them, and none that follows one.
func TestRealPagerGoesWithItsRestore(t *testing.T) {
	counting(t, ring.Real(t), func(t *testing.T, r *rig) {
		uid := r.warm()
		before := r.census()
		injected := errors.New("injected")
		for _, loss := range []PagerLoss{PagerRestart, PagerEnd} {
			r.options.PagerLoss = loss
			r.reopen()
			for _, point := range []string{"load/pager:after", "load/vmm:after", "load/commit:before", "restore/commit:before"} {
				r.failAt(point, injected)
				if _, _, err := r.runtime.Restore(within(t), "one/warm", "two", &pageByPage); !errors.Is(err, injected) {
					t.Errorf("%s: %v", point, err)
				}
				r.setHook(nil)
				if err := os.Remove(r.driver.snaps.WorkingSet(uid)); err != nil && !errors.Is(err, os.ErrNotExist) {
					t.Error(err)
				}
				r.unchanged(before)
			}
			vm := r.restore("one/warm", "two", &pageByPage)
			r.goesOn(vm, "one/warm")
			r.destroy(vm)
		}
	})
}
