//go:build linux

package firecracker

import (
	"bytes"
	words "encoding/binary"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/pager"
	"github.com/tangle-network/microvm-runtime/internal/setup"
	"github.com/tangle-network/microvm-runtime/internal/snapstore"
	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
	"github.com/tangle-network/microvm-runtime/internal/testing/tinyguest"
)

// counting runs a test bare and jailed with machines that count, and write to their memory.
func counting(t *testing.T, p setup.Parts, test func(t *testing.T, r *rig)) {
	for name, bare := range map[string]bool{"bare": true, "jailed": false} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, p, bare, tinyguest.Program{After: tinyguest.Count})
			r.spec.TrackDirty = true
			test(t, r)
		})
	}
}

// letters reads what a counting machine has written, from its beginning, as soon as that is n letters.
func (r *rig) letters(vm *microvm.VM, n int) string {
	r.t.Helper()
	reader, err := vm.Console(within(r.t), &microvm.ConsoleOptions{Follow: true})
	if err != nil {
		r.t.Fatal(err)
	}
	defer reader.Close()
	text := make([]byte, n)
	if _, err := io.ReadFull(reader, text); err != nil {
		r.t.Fatal(err)
	}
	return string(text)
}

// pause pauses a counting machine that has written something.
func (r *rig) pause(vm *microvm.VM) {
	r.t.Helper()
	r.letters(vm, 3)
	if err := vm.Pause(within(r.t)); err != nil {
		r.t.Fatal(err)
	}
}

// goesOn fails the test unless what a machine writes first is what one that was restored from this snapshot writes next: its memory says how far it had counted.
func (r *rig) goesOn(vm *microvm.VM, snapshot string) {
	r.t.Helper()
	const lettersOf, turns = 16, 4096
	memory, counted := r.memoryOf(snapshot), uint32(0)
	for page := range tinyguest.CountPages {
		counted = max(counted, words.LittleEndian.Uint32(memory[32<<20+page*4096:]))
	}
	if counted < 2*turns {
		r.t.Fatalf("it had counted to %d", counted)
	}
	letter := func(n uint32) string { return string('a' + rune(n%lettersOf)) }
	said, written := counted/turns, r.letters(vm, 2)
	ok := written == letter(said+1)+letter(said+2)
	if counted%turns == 0 { // it may have stood before it wrote
		ok = ok || written == letter(said)+letter(said+1)
	}
	if !ok {
		r.t.Errorf("from %d on it wrote %q", counted, written)
	}
}

func (r *rig) snapshot(vm *microvm.VM, name string, o *microvm.SnapshotOptions) microvm.SnapshotInfo {
	r.t.Helper()
	info, err := vm.Snapshot(within(r.t), name, o)
	if err != nil {
		r.t.Fatal(err)
	}
	return info
}

func (r *rig) restore(snapshot, name string, o *microvm.RestoreOptions) *microvm.VM {
	r.t.Helper()
	vm, _, err := r.runtime.Restore(within(r.t), snapshot, name, o)
	if err != nil {
		r.t.Fatal(err)
	}
	return vm
}

// TestRealRestore: machines go on where another was, which goes on too; each is its own.
func TestRealRestore(t *testing.T) {
	counting(t, ring.Real(t), func(t *testing.T, r *rig) {
		before := r.census()
		vm := r.create("one")
		r.start(vm)
		r.pause(vm)
		info := r.snapshot(vm, "warm", nil)
		if info.Name != "one/warm" || info.Kind != microvm.SnapshotFull || info.Stood != 0 || info.Problem != "" || info.MemoryBytes == 0 || info.StateBytes == 0 {
			t.Errorf("snapshot %+v", info)
		}
		if got := r.info(vm); got.State != microvm.StatePaused {
			t.Errorf("the machine is %s", got.State)
		}
		clones := []*microvm.VM{r.restore("one/warm", "two", nil), r.restore(info.UID, "three", nil)}
		for _, clone := range append(clones, vm) {
			if err := clone.Resume(within(t)); err != nil {
				t.Fatal(err)
			}
		}
		for _, clone := range clones {
			r.goesOn(clone, "one/warm")
			if got := r.info(clone); got.State != microvm.StateRunning || got.Spec.MemoryMiB != info.Spec.MemoryMiB {
				t.Errorf("the clone is %+v", got)
			}
		}
		if err := r.runtime.DeleteSnapshot(within(t), "one/warm"); !errors.Is(err, microvm.ErrBusy) || !strings.Contains(err.Error(), "machine t") {
			t.Errorf("deleted while machines run from it: %v", err)
		}
		for _, machine := range append(clones, vm) {
			r.destroy(machine)
		}
		if err := r.runtime.DeleteSnapshot(within(t), "one/warm"); err != nil {
			t.Error(err)
		}
		r.unchanged(before)
	})
}

// TestRealRestoredIsAMachine: a restored machine is one as any other: it can be stopped, started, paused, and written down itself.
func TestRealRestoredIsAMachine(t *testing.T) {
	counting(t, ring.Real(t), func(t *testing.T, r *rig) {
		vm := r.create("one")
		r.start(vm)
		r.snapshot(vm, "first", nil)
		r.destroy(vm)
		clone := r.restore("one/first", "two", &microvm.RestoreOptions{Paused: true, Labels: map[string]string{"a": "b"}})
		if info := r.info(clone); info.State != microvm.StatePaused || info.Spec.Labels["a"] != "b" {
			t.Errorf("restored: %+v", info)
		}
		if err := clone.Resume(within(t)); err != nil {
			t.Fatal(err)
		}
		r.letters(clone, 2)
		r.snapshot(clone, "second", nil)
		if _, err := clone.Stop(within(t), &microvm.StopOptions{Force: true}); err != nil {
			t.Fatal(err)
		}
		r.start(clone)
		if got := r.letters(clone, 1); got != "b" {
			t.Errorf("booted, it begins with %q", got)
		}
		again := r.restore("two/second", "three", nil)
		r.letters(again, 1)
		for _, vm := range []*microvm.VM{clone, again} {
			r.destroy(vm)
		}
		for _, snapshot := range []string{"one/first", "two/second"} {
			if err := r.runtime.DeleteSnapshot(within(t), snapshot); err != nil {
				t.Error(err)
			}
		}
	})
}

// TestRealDiff: a diff has what was written since its parent, is the same as a full one once it is merged, and is restored.
func TestRealDiff(t *testing.T) {
	counting(t, ring.Real(t), func(t *testing.T, r *rig) {
		vm := r.create("one")
		r.start(vm)
		r.letters(vm, 1)
		diff := &microvm.SnapshotOptions{Diff: true}
		first := r.snapshot(vm, "first", diff) // nothing is there that it could be over
		r.letters(vm, 1)
		r.snapshot(vm, "second", diff)
		r.pause(vm)
		third := r.snapshot(vm, "third", diff)
		whole := r.snapshot(vm, "whole", nil)
		if first.Kind != microvm.SnapshotFull || third.Kind != microvm.SnapshotDiff || whole.Kind != microvm.SnapshotFull {
			t.Errorf("kinds %s, %s, %s", first.Kind, third.Kind, whole.Kind)
		}
		if third.MemoryBytes >= first.MemoryBytes/4 {
			t.Errorf("the diff has %d bytes, the full one %d", third.MemoryBytes, first.MemoryBytes)
		}
		if err := r.runtime.DeleteSnapshot(within(t), "one/second"); !errors.Is(err, microvm.ErrBusy) || !strings.Contains(err.Error(), "one/third") {
			t.Errorf("deleted under another: %v", err)
		}
		clone := r.restore("one/third", "two", nil)
		r.goesOn(clone, "one/whole")
		r.destroy(clone)
		if err := r.runtime.FlattenSnapshot(within(t), "one/third"); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(r.memoryOf("one/third"), r.memoryOf("one/whole")) {
			t.Error("the merged diff is not the full one")
		}
		r.destroy(vm)
		for _, name := range []string{"one/second", "one/first", "one/third", "one/whole"} {
			if err := errors.Join(r.runtime.VerifySnapshot(within(t), name), r.runtime.DeleteSnapshot(within(t), name)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

func (r *rig) memoryOf(ref string) []byte { return r.fileOf(ref, snapstore.Memory) }

// fileOf returns the content of a snapshot's file.
func (r *rig) fileOf(ref, file string) []byte {
	r.t.Helper()
	uid, err := r.driver.snaps.Lookup(ref)
	if err != nil {
		r.t.Fatal(err)
	}
	manifest, err := r.driver.snaps.Read(uid)
	if err != nil {
		r.t.Fatal(err)
	}
	text, err := os.ReadFile(r.driver.snaps.Path(&manifest, file))
	if err != nil {
		r.t.Fatal(err)
	}
	return text
}

// TestRealRestorePageByPage: a machine whose memory a helper serves goes on as any, also when that helper is killed, while a driver lives and when none does; and it ends with a reason where
// its memory can't be served.
func TestRealRestorePageByPage(t *testing.T) {
	counting(t, ring.Real(t), func(t *testing.T, r *rig) {
		before := r.census()
		vm := r.create("one")
		r.start(vm)
		r.pause(vm)
		r.snapshot(vm, "warm", nil)
		r.destroy(vm)
		clone := r.restore("one/warm", "two", &microvm.RestoreOptions{Backend: microvm.MemoryUFFD})
		r.goesOn(clone, "one/warm")
		said := len(r.said(clone))
		r.killPager(clone)
		r.letters(clone, said+3) // another has taken over, or the guest had all that it needs: in both cases it goes on
		r.pagerServes(clone)
		if err := r.runtime.Close(); err != nil {
			t.Fatal(err)
		}
		r.killPager(clone)
		r.reopen()
		report, err := r.runtime.Recover(within(t), nil)
		if err != nil || len(report.Failed()) > 0 {
			t.Errorf("recover: %v, %+v", err, report)
		}
		clone, err = r.runtime.VM(within(t), "two")
		if err != nil {
			t.Fatal(err)
		}
		r.pagerServes(clone)
		r.letters(clone, len(r.said(clone))+3)
		again := r.restore("one/warm", "three", &microvm.RestoreOptions{Backend: microvm.MemoryUFFD, Paused: true})
		if _, err := again.Stop(within(t), &microvm.StopOptions{Force: true}); err != nil {
			t.Error(err)
		}
		for _, machine := range []*microvm.VM{clone, again} {
			r.destroy(machine)
		}
		if err := r.runtime.DeleteSnapshot(within(t), "one/warm"); err != nil {
			t.Error(err)
		}
		r.unchanged(before)
	})
}

// pagerServes waits until a helper serves a machine's memory.
func (r *rig) pagerServes(vm *microvm.VM) {
	r.t.Helper()
	ctx := within(r.t)
	for {
		lives, err := pager.Lives(r.driver.pagerDir(vm.UID()))
		if err == nil && lives {
			return
		}
		if ctx.Err() != nil {
			r.t.Fatalf("nobody serves its memory: %v", err)
		}
	}
}
