//go:build linux

package firecracker

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/record"
	"github.com/tangle-network/microvm-runtime/internal/snapstore"
	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
	"github.com/tangle-network/microvm-runtime/internal/testing/tinyguest"
)

// unsigned takes any export.
var unsigned = &microvm.ImportOptions{Unsigned: true}

func (r *rig) export(ref string) []byte {
	r.t.Helper()
	var out bytes.Buffer
	if err := r.runtime.ExportSnapshot(within(r.t), ref, &out, nil); err != nil {
		r.t.Fatal(err)
	}
	return out.Bytes()
}

func (r *rig) imports(name string, text []byte) microvm.SnapshotInfo {
	r.t.Helper()
	info, err := r.runtime.ImportSnapshot(within(r.t), name, bytes.NewReader(text), unsigned)
	if err != nil {
		r.t.Fatal(err)
	}
	return info
}

// gone destroys all that a state directory has.
func (r *rig) gone() {
	r.t.Helper()
	if err := r.runtime.Close(); err != nil {
		r.t.Error(err)
	}
	if purged, err := Purge(context.Background(), r.options); err != nil || len(purged.Stays) > 0 {
		r.t.Fatalf("purge: %v, %q stays", err, purged.Stays)
	}
	if left, err := os.ReadDir(r.options.StateDir); err == nil {
		r.t.Fatalf("left: %v", left)
	}
}

// TestRealImportElsewhere: when the state directory that a snapshot is of is gone, machines go on from its export in others, bare and jailed: from a full one and from a diff, which is a full one there.
func TestRealImportElsewhere(t *testing.T) {
	p := ring.Real(t)
	counting(t, p, func(t *testing.T, r *rig) {
		r.spec.Rootfs, r.spec.RootfsWritable, r.spec.Diskless = newDisk(t, "rootfs"), true, false
		r.spec.Drives = []microvm.Drive{{Path: newDisk(t, "data"), ReadOnly: true}}
		for path, text := range map[string]string{r.spec.Rootfs: "its disk", r.spec.Drives[0].Path: "its drive"} {
			if err := os.WriteFile(path, append(bytes.Repeat([]byte(text), 100_000), make([]byte, 1<<20)...), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		vm := r.create("one")
		r.start(vm)
		r.letters(vm, 1)
		diff := &microvm.SnapshotOptions{Diff: true}
		r.snapshot(vm, "first", diff)
		r.pause(vm)
		if info := r.snapshot(vm, "diff", diff); info.Kind != microvm.SnapshotDiff {
			t.Fatalf("kind %s", info.Kind)
		}
		r.snapshot(vm, "whole", nil)
		exports := map[string][]byte{"one/diff": r.export("one/diff"), "one/whole": r.export("one/whole")}
		memory, content := r.memoryOf("one/whole"), r.fileOf("one/whole", snapstore.Disk)
		drive := *must(os.ReadFile(r.spec.Drives[0].Path))
		if err := errors.Join(os.Remove(r.spec.Rootfs), os.Remove(r.spec.Drives[0].Path)); err != nil {
			t.Fatal(err)
		}
		r.spec = tiny
		r.gone()
		for where, bare := range map[string]bool{"bare": true, "jailed": false} {
			t.Run("to "+where, func(t *testing.T) {
				there := newRig(t, p, bare, tinyguest.Program{Text: "another kernel\n"})
				before := there.census()
				for name, text := range exports {
					info := there.imports("", text)
					if info.Name != name || info.Kind != microvm.SnapshotFull || info.Problem != "" {
						t.Errorf("imported: %+v", info)
					}
					if !bytes.Equal(there.memoryOf(name), memory) || !bytes.Equal(there.fileOf(name, snapstore.Disk), content) {
						t.Errorf("%s: the memory, or the disk, is another", name)
					}
					clone := there.restore(name, strings.ReplaceAll(name, "/", "-"), nil)
					there.goesOn(clone, name)
					if record := *must(there.driver.state.ReadRecord(clone.UID())); !bytes.Equal(*must(os.ReadFile(record.Files.Drives[0])), drive) {
						t.Errorf("%s: the drive is another", name)
					}
					if err := there.runtime.DeleteSnapshot(within(t), name); !errors.Is(err, microvm.ErrBusy) {
						t.Errorf("deleted while a machine runs from it: %v", err)
					}
					if _, err := clone.Stop(within(t), &microvm.StopOptions{Force: true}); err != nil {
						t.Fatal(err)
					}
					if err := there.runtime.DeleteSnapshot(within(t), name); err != nil {
						t.Error(err)
					}
					there.start(clone) // by what it boots from, which nobody collects
					there.letters(clone, 1)
					there.destroy(clone)
				}
				there.unchanged(before)
			})
		}
	})
}

// TestRealImportIsKept: what an imported snapshot needs of the store is not collected while it is there, is there once for two, and goes after the last.
func TestRealImportIsKept(t *testing.T) {
	r := newRig(t, ring.Real(t), true, tinyguest.Program{After: tinyguest.Count})
	vm := r.create("one")
	r.start(vm)
	r.pause(vm)
	r.snapshot(vm, "warm", nil)
	text := r.export("one/warm")
	r.destroy(vm)
	if err := r.runtime.DeleteSnapshot(within(t), "one/warm"); err != nil {
		t.Fatal(err)
	}
	files := func() int {
		if _, err := r.driver.collect(within(t)); err != nil {
			t.Fatal(err)
		}
		return len(*must(os.ReadDir(filepath.Join(r.options.StateDir, "store", "files"))))
	}
	if n := files(); n != 0 {
		t.Fatalf("%d files before", n)
	}
	r.imports("a/warm", text)
	r.imports("b/warm", text)
	if n := files(); n != 1 {
		t.Errorf("%d files, want the kernel", n)
	}
	if err := r.runtime.DeleteSnapshot(within(t), "a/warm"); err != nil {
		t.Fatal(err)
	}
	files()
	clone := r.restore("b/warm", "two", nil)
	r.goesOn(clone, "b/warm")
	r.destroy(clone)
	if err := r.runtime.DeleteSnapshot(within(t), "b/warm"); err != nil {
		t.Fatal(err)
	}
	if n := files(); n != 0 {
		t.Errorf("%d files after", n)
	}
}

// written makes a rig an export, and nothing else.
func written(r *rig) []byte {
	r.t.Helper()
	vm := r.create("one")
	r.start(vm)
	r.pause(vm)
	r.snapshot(vm, "warm", nil)
	text := r.export("one/warm")
	r.destroy(vm)
	if err := r.runtime.DeleteSnapshot(within(r.t), "one/warm"); err != nil {
		r.t.Fatal(err)
	}
	return text
}

// importPoints returns the failpoints of an import.
func importPoints(r *rig, text []byte) (points []string) {
	r.t.Helper()
	r.setHook(func(point string) error {
		if strings.HasPrefix(point, "import/") {
			points = append(points, point)
		}
		return nil
	})
	r.imports("probe/probe", text)
	r.setHook(nil)
	if err := r.runtime.DeleteSnapshot(within(r.t), "probe/probe"); err != nil {
		r.t.Fatal(err)
	}
	if len(points) < 4 {
		r.t.Fatalf("only points %q", points)
	}
	return points
}

// TestRealImportFailsAtEveryStep: nothing is left.
func TestRealImportFailsAtEveryStep(t *testing.T) {
	r := newRig(t, ring.Real(t), true, tinyguest.Program{After: tinyguest.Count})
	text := written(r)
	before := r.census()
	for _, point := range importPoints(r, text) {
		r.failAt(point, errInjected)
		if _, err := r.runtime.ImportSnapshot(within(t), "", bytes.NewReader(text), unsigned); !errors.Is(err, errInjected) {
			t.Errorf("%s: %v, want the injected error", point, err)
		}
		r.setHook(nil)
		r.unchanged(before)
	}
	r.imports("", text)
	r.destroy(r.restore("one/warm", "two", nil))
}

// TestRealDriverKilledInImport: the snapshot is there, whole, or nothing of it once Recover has run.
func TestRealDriverKilledInImport(t *testing.T) {
	r := newRig(t, ring.Real(t), true, tinyguest.Program{After: tinyguest.Count})
	text := written(r)
	file := filepath.Join(t.TempDir(), "export")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	before := r.census()
	for _, point := range importPoints(r, text) {
		r.die(order{Options: childOptionsOf(r.options), Verb: "import", Name: file, KillAt: point})
		r.reopen()
		if report, err := r.runtime.Recover(within(t), nil); err != nil || len(report.Failed()) > 0 {
			t.Errorf("%s: recover: %v, %+v", point, err, report)
		}
		err := r.runtime.VerifySnapshot(within(t), "one/warm")
		if point == "import/name:after" {
			if err != nil {
				t.Errorf("%s: %v", point, err)
			}
			r.destroy(r.restore("one/warm", "two", nil))
			err = r.runtime.DeleteSnapshot(within(t), "one/warm")
		} else if errors.Is(err, microvm.ErrNotFound) {
			err = nil
		}
		if err != nil {
			t.Errorf("%s: %v", point, err)
		}
		r.unchanged(before)
	}
}

// TestRealImportCounts: Limits.SnapshotMiB bounds imports, and what is imported counts for snapshots.
func TestRealImportCounts(t *testing.T) {
	p := ring.Real(t)
	from := newRig(t, p, true, tinyguest.Program{After: tinyguest.Count})
	text := written(from)
	r := newRig(t, p, true, tinyguest.Program{After: tinyguest.Count})
	info := r.imports("", text)
	size := int((info.MemoryBytes+info.StateBytes+1<<20-1)>>20) + 1 // with its manifest
	if err := r.runtime.DeleteSnapshot(within(t), "one/warm"); err != nil {
		t.Fatal(err)
	}
	limit := func(mib int) {
		r.options.Limits.SnapshotMiB = mib
		r.reopen()
	}
	before := r.census()
	limit(1)
	if _, err := r.runtime.ImportSnapshot(within(t), "", bytes.NewReader(text), unsigned); size > 2 && (!errors.Is(err, microvm.ErrExhausted) || !strings.Contains(err.Error(), "SnapshotMiB")) {
		t.Errorf("of %d MiB: %v", size, err)
	}
	r.unchanged(before)
	limit(size)
	r.imports("a/warm", text)
	if _, err := r.runtime.ImportSnapshot(within(t), "b/warm", bytes.NewReader(text), unsigned); !errors.Is(err, microvm.ErrExhausted) {
		t.Errorf("a second: %v", err)
	}
	vm := r.create("one")
	r.start(vm)
	limit(size + 100) // of 128 that it may need
	vm = *must(r.runtime.VM(within(t), "one"))
	if _, err := vm.Snapshot(within(t), "warm", nil); !errors.Is(err, microvm.ErrExhausted) {
		t.Errorf("a snapshot beside an import: %v", err)
	}
	if deleted, freed, err := r.runtime.PruneSnapshots(within(t), &microvm.PruneOptions{MaxMiB: 1}); err != nil || len(deleted) != 1 || freed < info.MemoryBytes {
		t.Errorf("pruned %+v, %d bytes, %v", deleted, freed, err)
	}
	limit(size + 200)
	vm = *must(r.runtime.VM(within(t), "one"))
	r.snapshot(vm, "warm", nil)
	r.destroy(vm)
}

// TestRealImportOnFullDisk: as long as there is no space for all of it nothing is left, and with space it works.
func TestRealImportOnFullDisk(t *testing.T) {
	text := written(newRig(t, ring.Real(t), true, tinyguest.Program{After: tinyguest.Count}))
	r, fill, free := fullRig(t, true, stateDir)
	fill()
	before := r.census()
	refuses := func(size string) {
		t.Helper()
		if _, err := r.runtime.ImportSnapshot(within(t), "", bytes.NewReader(text), unsigned); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("import to %s: %v", size, err)
		}
		if left, _ := filepath.Glob(filepath.Join(r.options.StateDir, snapshotsDir, "*", "*")); len(left) > 0 {
			t.Errorf("%s: left: %q", size, left)
		}
		r.unchanged(before)
	}
	refuses("no space")
	free()
	before = r.census()
	refuses("4 MiB")
	if err := syscall.Mount("", r.options.StateDir, "", syscall.MS_REMOUNT, "size=256m"); err != nil {
		t.Fatal(err)
	}
	r.imports("", text)
	if err := r.runtime.DeleteSnapshot(within(t), "one/warm"); err != nil {
		t.Error(err)
	}
}

// TestRealImportForAnotherHost: what can't be restored here is imported all the same, and says why.
func TestRealImportForAnotherHost(t *testing.T) {
	r := newRig(t, ring.Real(t), true, tinyguest.Program{After: tinyguest.Count})
	vm := r.create("one")
	r.start(vm)
	uid := r.snapshot(vm, "warm", nil).UID
	r.destroy(vm)
	made, err := r.driver.snaps.Read(uid)
	if err != nil {
		t.Fatal(err)
	}
	exportedBy := func(version string) []byte {
		m := made
		m.Firecracker = version
		if err := record.Write(filepath.Join(r.options.StateDir, snapshotsDir, "all", uid, "manifest.json"), snapstore.Version, m, false); err != nil {
			t.Fatal(err)
		}
		return r.export("one/warm")
	}
	info := r.imports("other/warm", exportedBy("9.9.9"))
	if !strings.Contains(info.Problem, "9.9.9") {
		t.Errorf("problem %q", info.Problem)
	}
	if _, _, err := r.runtime.Restore(within(t), "other/warm", "two", nil); !errors.Is(err, microvm.ErrIncompatible) {
		t.Errorf("restore: %v", err)
	}
	if info := r.imports("same/warm", exportedBy(made.Firecracker)); info.Problem != "" {
		t.Errorf("problem %q", info.Problem)
	}
	r.destroy(r.restore("same/warm", "two", nil))
}

// TestRealExportSigned by a key is what that key's other half trusts.
func TestRealExportSigned(t *testing.T) {
	r := newRig(t, ring.Real(t), true, tinyguest.Program{After: tinyguest.Count})
	vm := r.create("one")
	r.start(vm)
	r.snapshot(vm, "warm", nil)
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := r.runtime.ExportSnapshot(within(t), "one/warm", &out, &microvm.ExportOptions{Key: private}); err != nil {
		t.Fatal(err)
	}
	trusted := &microvm.ImportOptions{Trusted: []ed25519.PublicKey{public}}
	for at := 0; at < out.Len(); at += out.Len()/7 + 1 {
		tampered := bytes.Clone(out.Bytes())
		tampered[at] ^= 1
		if _, err := r.runtime.ImportSnapshot(within(t), "a/b", bytes.NewReader(tampered), trusted); !errors.Is(err, microvm.ErrInvalid) && !errors.Is(err, microvm.ErrIncompatible) {
			t.Errorf("tampered with at %d: %v", at, err)
		}
	}
	if _, err := r.runtime.ImportSnapshot(within(t), "a/b", bytes.NewReader(out.Bytes()), trusted); err != nil {
		t.Error(err)
	}
	r.destroy(vm)
}
