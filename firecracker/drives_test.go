//go:build linux

package firecracker

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/disk"
	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
	"github.com/tangle-network/microvm-runtime/internal/testing/tinyguest"
)

// createWith makes a machine with drives.
func (r *rig) createWith(name string, drives ...microvm.Drive) (*microvm.VM, error) {
	spec := tiny
	spec.Drives = drives
	return r.runtime.Create(r.t.Context(), name, spec)
}

// look returns a file's mode, owner and inode.
func look(t *testing.T, path string) (fs.FileMode, *syscall.Stat_t) {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Mode(), info.Sys().(*syscall.Stat_t)
}

func wantOwner(t *testing.T, path string, mode fs.FileMode, uid, gid int) {
	t.Helper()
	if got, stat := look(t, path); got != mode || int(stat.Uid) != uid || int(stat.Gid) != gid {
		t.Errorf("%s: %v of %d:%d, want %v of %d:%d", path, got, stat.Uid, stat.Gid, mode, uid, gid)
	}
}

// othersDisk is a disk of a user's own.
func othersDisk(t *testing.T, name string) string {
	t.Helper()
	path := newDisk(t, name)
	if err := errors.Join(os.Chown(path, 12345, 12346), os.Chmod(path, 0o640)); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestRealDrivesInJail: a writable one is the caller's very file, and the VM's user's until Destroy; a read-only one is the store's.
func TestRealDrivesInJail(t *testing.T) {
	r := newRig(t, ring.Real(t), false, tinyguest.Program{Text: marker + "\n"})
	writable, shared := othersDisk(t, "writable"), othersDisk(t, "shared")
	vm, err := r.createWith("one", microvm.Drive{Path: writable}, microvm.Drive{Path: shared, ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	user, root := defaultFirstUID, filepath.Join(r.options.StateDir, "jails", "firecracker", vm.UID(), "root")
	for range 2 { // each start has a new jail
		wantOwner(t, writable, 0o600, user, user)
		r.start(vm)
		wantOwner(t, filepath.Join(root, "drive-0"), 0o600, user, user)
		wantOwner(t, filepath.Join(root, "img", "drive-1"), 0o444, 0, 0)
		_, mine := look(t, writable)
		_, theirs := look(t, filepath.Join(root, "drive-0"))
		_, stored := look(t, filepath.Join(root, "img", "drive-1"))
		_, original := look(t, shared)
		if mine.Ino != theirs.Ino || stored.Ino == original.Ino {
			t.Errorf("inodes %d and %d are to be one, %d and %d are not", mine.Ino, theirs.Ino, stored.Ino, original.Ino)
		}
		if _, err := vm.Stop(t.Context(), &microvm.StopOptions{Force: true}); err != nil {
			t.Fatal(err)
		}
	}
	r.destroy(vm)
	for _, path := range []string{writable, shared} {
		wantOwner(t, path, 0o640, 12345, 12346)
		if _, stat := look(t, path); stat.Nlink != 1 {
			t.Errorf("%s has %d names", path, stat.Nlink)
		}
	}
}

// TestRealDriveIsRefused: what can't be a drive is refused, and nothing is left of the machine.
func TestRealDriveIsRefused(t *testing.T) {
	bothWays(t, ring.Real(t), func(t *testing.T, r *rig) {
		dir, good := t.TempDir(), newDisk(t, "good")
		elsewhere, err := os.CreateTemp("/dev/shm", "microvm-drive-")
		if err != nil {
			t.Fatal(err)
		}
		defer os.Remove(elsewhere.Name())
		errs := []error{elsewhere.Truncate(1 << 20), elsewhere.Close(), os.Symlink(good, dir+"/symlink"), os.WriteFile(dir+"/short", make([]byte, 511), 0o600), syscall.Mkfifo(dir+"/fifo", 0o600),
			os.Link(good, dir+"/link")}
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
		before := r.census()
		for _, bad := range []struct {
			path, says string
		}{
			{dir + "/symlink", "name what it leads to: " + good}, {dir + "/short", "512 bytes"}, {dir + "/fifo", "neither a regular file"}, {dir, "neither"}, {dir + "/none", "no such file"},
			{good + "/x", "not a directory"}, {"/dev/null", "neither"}, {dir + "/link", "are the same"}, {elsewhere.Name(), "Options.StateDir " + r.options.StateDir},
		} {
			vm, err := r.createWith("one", microvm.Drive{Path: good}, microvm.Drive{Path: bad.path})
			if bad.path == elsewhere.Name() && r.options.Bare && err == nil {
				r.start(vm) // a link leads anywhere
				r.destroy(vm)
			} else if !errors.Is(err, microvm.ErrInvalid) || !strings.Contains(err.Error(), "drive 1: ") || !strings.Contains(err.Error(), bad.says) {
				t.Errorf("%s: %v, want ErrInvalid of drive 1 that says %q", bad.path, err, bad.says)
			}
			r.unchanged(before)
		}
		vm, err := r.createWith("one", microvm.Drive{Path: good})
		if err != nil {
			t.Fatal(err)
		}
		r.start(vm)
		r.destroy(vm)
	})
}

// TestRealDriveBecameAnother: what is at a drive's path is no more what was lent. It is neither used nor given away.
func TestRealDriveBecameAnother(t *testing.T) {
	r := newRig(t, ring.Real(t), false, tinyguest.Program{Text: marker + "\n"})
	var log bytes.Buffer
	r.options.Logger = slog.New(slog.NewTextHandler(&log, nil))
	r.reopen()
	for name, replace := range map[string]func(path string) error{
		"file": func(path string) error {
			return errors.Join(os.WriteFile(path+".new", make([]byte, 1<<20), 0o644), os.Chown(path+".new", 777, 777), os.Rename(path, path+".old"), os.Rename(path+".new", path))
		},
		"symlink": func(path string) error {
			return errors.Join(os.Rename(path, path+".old"), os.Symlink("/etc/passwd", path))
		},
		"nothing": os.Remove,
	} {
		t.Run(name, func(t *testing.T) {
			path := othersDisk(t, "disk")
			vm, err := r.createWith("one", microvm.Drive{Path: path})
			if err != nil {
				t.Fatal(err)
			}
			r.start(vm)
			if _, err := vm.Stop(t.Context(), &microvm.StopOptions{Force: true}); err != nil {
				t.Fatal(err)
			}
			if err := replace(path); err != nil {
				t.Fatal(err)
			}
			if err := vm.Start(t.Context(), nil); err == nil || !strings.Contains(err.Error(), path) {
				t.Errorf("start: %v, want an error that names the drive", err)
			}
			log.Reset()
			r.destroy(vm)
			if !strings.Contains(log.String(), path) || !strings.Contains(log.String(), vm.UID()) {
				t.Errorf("the log does not tell:\n%s", log.String())
			}
			if name == "file" {
				wantOwner(t, path, 0o644, 777, 777)
			}
			wantOwner(t, "/etc/passwd", 0o644, 0, 0)
		})
	}
}

// TestRealDriveOfLostMachine: the loan of a machine whose directory was removed by hand ends with the next who wants the drive, and its owner is not forgotten. One
// whose record is damaged keeps it until it is destroyed.
func TestRealDriveOfLostMachine(t *testing.T) {
	r := newRig(t, ring.Real(t), false, tinyguest.Program{Text: marker + "\n"})
	path := othersDisk(t, "disk")
	lost, err := r.createWith("lost", microvm.Drive{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	record := filepath.Join(r.driver.state.Machine(lost.UID()), "record.json")
	if err := os.Truncate(record, 10); err != nil {
		t.Fatal(err)
	}
	if _, err := r.createWith("next", microvm.Drive{Path: path}); !errors.Is(err, microvm.ErrBusy) || !strings.Contains(err.Error(), lost.UID()) {
		t.Errorf("a machine that is damaged has it: %v", err)
	}
	r.destroy(lost)
	wantOwner(t, path, 0o640, 12345, 12346)
	if lost, err = r.createWith("lost", microvm.Drive{Path: path}); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.RemoveAll(r.driver.state.Machine(lost.UID())), os.Remove(filepath.Join(r.options.StateDir, "names", "lost")), r.driver.slots.Release(t.Context(), lost.UID())); err != nil {
		t.Fatal(err)
	}
	next, err := r.createWith("next", microvm.Drive{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	r.start(next)
	r.destroy(next)
	wantOwner(t, path, 0o640, 12345, 12346)
}

// loopDevice makes a block device of a file.
func loopDevice(t *testing.T, file string) string {
	t.Helper()
	out, err := exec.Command("losetup", "--find", "--show", file).Output()
	if err != nil {
		t.Fatalf("losetup: %v", err)
	}
	device := strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if out, err := exec.Command("losetup", "--detach", device).CombinedOutput(); err != nil {
			t.Errorf("losetup: %v %s", err, out)
		}
	})
	return device
}

// TestRealBlockDevice: the VM's user has a node of its own, the host's stays as it is. What the host has mounted is busy.
func TestRealBlockDevice(t *testing.T) {
	r := newRig(t, ring.Real(t), false, tinyguest.Program{Text: marker + "\n"})
	backing := filepath.Join(t.TempDir(), "disk")
	if err := disk.EmptyExt4(t.Context(), backing, 16); err != nil {
		t.Fatal(err)
	}
	device := loopDevice(t, backing)
	mode, host := look(t, device)
	vm, err := r.createWith("one", microvm.Drive{Path: device})
	if err != nil {
		t.Fatal(err)
	}
	r.start(vm)
	node := filepath.Join(r.options.StateDir, "jails", "firecracker", vm.UID(), "root", "drive-0")
	if _, stat := look(t, node); stat.Rdev != host.Rdev {
		t.Errorf("device %x in the jail, %x outside", stat.Rdev, host.Rdev)
	}
	wantOwner(t, node, fs.ModeDevice|0o600, defaultFirstUID, defaultFirstUID)
	wantOwner(t, device, mode, int(host.Uid), int(host.Gid))
	other := filepath.Join(t.TempDir(), "node")
	if err := syscall.Mknod(other, syscall.S_IFBLK|0o600, int(host.Rdev)); err != nil {
		t.Fatal(err)
	}
	if _, err := r.createWith("two", microvm.Drive{Path: other}); !errors.Is(err, microvm.ErrBusy) {
		t.Errorf("by another node: %v, want ErrBusy", err)
	}
	r.destroy(vm)
	dir := t.TempDir()
	if err := syscall.Mount(device, dir, "ext4", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer syscall.Unmount(dir, 0)
	if _, err := r.createWith("two", microvm.Drive{Path: other}); !errors.Is(err, microvm.ErrBusy) || !strings.Contains(err.Error(), "mounted") {
		t.Errorf("while it is mounted: %v, want ErrBusy", err)
	}
	if err := syscall.Unmount(dir, 0); err != nil {
		t.Fatal(err)
	}
	if vm, err = r.createWith("two", microvm.Drive{Path: other}); err != nil {
		t.Fatal(err)
	}
	r.destroy(vm)
}

// TestRealDrivesAreInOrder: the VMM has them after the machine's own disks, by names that stay.
func TestRealDrivesAreInOrder(t *testing.T) {
	bothWays(t, ring.Real(t), func(t *testing.T, r *rig) {
		spec := microvm.Spec{Rootfs: newDisk(t, "rootfs"), RootfsWritable: true, Drives: []microvm.Drive{{Path: newDisk(t, "a")}, {Path: newDisk(t, "b"), ReadOnly: true}, {Path: newDisk(t, "c")}}}
		vm, err := r.runtime.Create(t.Context(), "one", spec)
		if err != nil {
			t.Fatal(err)
		}
		r.start(vm)
		record := must(r.driver.state.ReadRecord(vm.UID()))
		client := r.driver.client(record)
		defer client.Close()
		config, err := client.GetVMConfig(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, drive := range config.Drives {
			got = append(got, fmt.Sprint(drive.DriveID, " ", drive.PathOnHost, " ", drive.IsReadOnly, " ", drive.CacheType))
		}
		want := "layer layer false Unsafe, drive0 drive-0 false Writeback, drive1 img/drive-1 true Unsafe, drive2 drive-2 false Writeback"
		if strings.Join(got, ", ") != want {
			t.Errorf("drives %q, want %q", strings.Join(got, ", "), want)
		}
		r.destroy(vm)
	})
}

// TestRealDriveIsNotOutgrown: a VMM may write files as large as its largest drive.
func TestRealDriveIsNotOutgrown(t *testing.T) {
	r := newRig(t, ring.Real(t), false, tinyguest.Program{Text: marker + "\n"})
	large := newDisk(t, "large")
	if err := os.Truncate(large, 5<<30); err != nil {
		t.Fatal(err)
	}
	vm, err := r.createWith("one", microvm.Drive{Path: large})
	if err != nil {
		t.Fatal(err)
	}
	if most := maxFile(must(r.driver.state.ReadRecord(vm.UID()))); most < 5<<30 || most > 6<<30 {
		t.Errorf("%d bytes for a drive of 5 GiB", most)
	}
	r.destroy(vm)
}
