//go:build linux

package firecracker

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/guest"
)

// drawing is a program that draws random numbers of the kernel's for ever, one a line.
const drawing = `import os, time
while True:
    print(os.urandom(8).hex(), flush=True)
    time.sleep(0.05)`

// TestLabSnapshot: a machine is written down in the middle of its work, more than once, and others go on from there; each is its own.
func TestLabSnapshot(t *testing.T) {
	r := newLabRigOn(t, false, nil, func(o *Options) { o.Logger = slog.New(slog.NewTextHandler(t.Output(), nil)) })
	vm := r.create(microvm.Spec{TrackDirty: true, MemoryMiB: 160})
	r.start(vm)
	sh(t, vm, `mkdir -p /etc/microvm/resume.d; echo uninitialized >/etc/machine-id
		printf '#!/bin/sh\necho hook of $MICROVM_GENERATION; echo $MICROVM_GENERATION >/run/hook\n' >/etc/microvm/resume.d/10-app; chmod +x /etc/microvm/resume.d/10-app; echo of the source >/kept`)
	draw := guest.Command(vm, "sh", "-c", `exec python3 -c "$0" >/tmp/drawn`, drawing)
	draw.ID, draw.Detached = "draw", true
	if err := draw.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	for begin := time.Now(); len(strings.Fields(sh(t, vm, "cat /tmp/drawn"))) < 3; {
		if time.Since(begin) > 30*time.Second {
			t.Fatal("nothing is drawn")
		}
	}
	work := guest.Command(vm, "sh", "-c", "i=0; while [ $i -lt 300 ]; do echo line $i; i=$((i+1)); sleep 0.02; done")
	worked, err := workOf(t, work)
	if err != nil {
		t.Fatal(err)
	}
	warm := r.snapshot(vm, "warm")
	if warm.Unfrozen != "" || warm.Kind != microvm.SnapshotFull || warm.Copied == 0 && warm.DiskBytes == 0 {
		t.Errorf("snapshot %+v", warm)
	}
	t.Logf("a full one: the guest stood for %v, %d MiB of memory, %d KiB of disk", warm.Stood, warm.MemoryBytes>>20, warm.DiskBytes>>10)
	clones := r.fork(warm.UID, "clone_a", "clone_b")
	testClones(t, vm, clones)
	testDrawn(t, clones)
	for _, clone := range clones {
		r.destroy(clone)
	}
	testRounds(t, r, vm)
	select {
	case out := <-worked:
		if out != "" {
			t.Error(out)
		}
	case <-time.After(time.Minute):
		t.Fatalf("the command does not end: %s", sh(t, vm, "cat /sys/fs/cgroup/workload/cgroup.events; ps ax"))
	}
	r.destroy(vm)
}

// workOf starts a command and says, once it has ended, what is wrong with what it wrote: nothing may be lost or there twice.
func workOf(t *testing.T, work *guest.Cmd) (<-chan string, error) {
	var out bytes.Buffer
	work.Stdout = &out
	if err := work.Start(t.Context()); err != nil {
		return nil, err
	}
	said := make(chan string, 1)
	go func() {
		err := work.Wait()
		var want strings.Builder
		for i := range 300 {
			fmt.Fprintf(&want, "line %d\n", i)
		}
		switch {
		case err != nil:
			said <- err.Error()
		case out.String() != want.String():
			said <- fmt.Sprintf("the command wrote %q", out.String())
		default:
			said <- ""
		}
	}()
	return said, nil
}

func (r *labRig) snapshot(vm *microvm.VM, name string) microvm.SnapshotInfo {
	r.t.Helper()
	info, err := vm.Snapshot(r.t.Context(), name, &microvm.SnapshotOptions{Diff: true})
	if err != nil {
		r.t.Fatalf("%v\nconsole:\n%s", err, r.console(vm))
	}
	return info
}

func (r *labRig) fork(snapshot string, names ...string) (clones []*microvm.VM) {
	r.t.Helper()
	begin := time.Now()
	forked, err := r.runtime.Fork(r.t.Context(), snapshot, names, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, f := range forked {
		if f.Err != nil {
			r.t.Fatalf("%s: %v, %+v", f.Name, f.Err, f.Evidence)
		}
		if failed := f.Evidence.Failed(); len(failed) > 0 || len(f.Evidence) == 0 {
			r.t.Errorf("%s: %+v", f.Name, f.Evidence)
		}
		clones = append(clones, f.VM)
	}
	r.t.Logf("%d restored in %v; of the last: %+v", len(names), time.Since(begin), forked[len(forked)-1].Evidence)
	return clones
}

func (r *labRig) destroy(vm *microvm.VM) {
	r.t.Helper()
	if err := vm.Destroy(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
}

// testClones: what tells machines from each other is each one's own, and what they write.
func testClones(t *testing.T, source *microvm.VM, clones []*microvm.VM) {
	seen := map[string]string{}
	for i, vm := range append([]*microvm.VM{source}, clones...) {
		for _, script := range []string{"hostname", "cat /etc/machine-id", "cat /proc/sys/kernel/random/uuid", "od -An -N16 -tx8 /dev/urandom"} {
			got := sh(t, vm, script)
			if other := seen[script+got]; other != "" || got == "" {
				t.Errorf("%s: %q is machine %s's too", script, got, other)
			}
			seen[script+got] = vm.UID()
		}
		if got := sh(t, vm, "cat /kept"); got != "of the source" {
			t.Errorf("the disk has %q", got)
		}
		sh(t, vm, "echo own >/own"+strconv.Itoa(i))
	}
	for i, vm := range clones {
		want := fmt.Sprintf("%s\n%s\nclone-%c", vm.UID(), vm.UID(), 'a'+i)
		if got := sh(t, vm, "cat /run/microvm/generation /run/hook; hostname"); got != want {
			t.Errorf("generation, hook, host name %q, want %q", got, want)
		}
		if got := sh(t, vm, "echo /own*"); got != fmt.Sprint("/own", i+1) {
			t.Errorf("the disk has %q", got)
		}
		testClock(t, vm)
	}
}

// testClock compares the guest's clock with the host's, as well as the way there lets it.
func testClock(t *testing.T, vm *microvm.VM) {
	before := time.Now()
	got := sh(t, vm, "date +%s%N")
	after := time.Now()
	ns, err := strconv.ParseInt(got, 10, 64)
	const allowed = 50 * time.Millisecond
	if at := time.Unix(0, ns); err != nil || at.Before(before.Add(-allowed)) || at.After(after.Add(allowed)) {
		t.Errorf("the clock says %v, between %v and %v: %v", at, before, after, err)
	}
}

// testDrawn: two clones that were made their own never draw the same number, but for those of before the snapshot, which both have.
func testDrawn(t *testing.T, clones []*microvm.VM) {
	drawn := [2][]string{drawnMore(t, clones[0]), drawnMore(t, clones[1])}
	before := common(drawn)
	if before == 0 {
		t.Error("nothing was drawn before the snapshot")
	}
	for _, n := range drawn[0][before:] {
		if slices.Contains(drawn[1][before:], n) {
			t.Errorf("two clones draw %s", n)
		}
	}
}

// drawnMore returns all that a machine has drawn, once it has drawn some after its restore.
func drawnMore(t *testing.T, vm *microvm.VM) []string {
	t.Helper()
	const some = 3
	at := len(strings.Fields(sh(t, vm, "cat /tmp/drawn")))
	for begin := time.Now(); time.Since(begin) < 30*time.Second; {
		if all := strings.Fields(sh(t, vm, "cat /tmp/drawn")); len(all) > at+some {
			return all
		}
	}
	t.Fatal("what was started before the snapshot does not go on")
	return nil
}

// common returns how many numbers both begin with.
func common(drawn [2][]string) (n int) {
	for n < min(len(drawn[0]), len(drawn[1])) && drawn[0][n] == drawn[1][n] {
		n++
	}
	return n
}

// testRounds takes diffs over each other and goes on from each, with data of which every byte is known.
func testRounds(t *testing.T, r *labRig, vm *microvm.VM) {
	data := make([]byte, 2<<20)
	for round := range 2 {
		rand.Read(data)
		write := guest.Command(vm, "sh", "-c", "cat >/data; sha256sum </data >/tmp/sum")
		write.Stdin = bytes.NewReader(data)
		if out, err := write.CombinedOutput(t.Context()); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		info := r.snapshot(vm, fmt.Sprint("round", round))
		if info.Kind != microvm.SnapshotDiff {
			t.Errorf("round %d: %+v", round, info)
		}
		clone := r.fork(info.Name, fmt.Sprint("round", round))[0]
		want := fmt.Sprintf("%x", sha256.Sum256(data))
		if got := sh(t, clone, "cut -d' ' -f1 /tmp/sum; echo 3 >/proc/sys/vm/drop_caches; sha256sum </data | cut -d' ' -f1"); got != want+"\n"+want {
			t.Errorf("round %d: %s, want twice %s", round, got, want)
		}
		t.Logf("round %d: the guest stood for %v, %d MiB of memory", round, info.Stood, info.MemoryBytes>>20)
		r.destroy(clone)
	}
}
