//go:build linux

package state

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/vmm"
)

func newDir(t *testing.T) *Dir {
	t.Helper()
	root := t.TempDir()
	d, err := Open(filepath.Join(root, "state"), Layout{SocketDir: filepath.Join(root, "run")})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// begunMachine begins to make a machine: nothing is known of it yet.
func begunMachine(t *testing.T, d *Dir) *Lock {
	t.Helper()
	lock, err := d.Create(t.Context(), NewUID())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(lock.Unlock)
	if err := os.Mkdir(d.Volatile(lock.UID()), 0o700); err != nil {
		t.Fatal(err)
	}
	return lock
}

// newMachine makes a machine with a record and a run.
func newMachine(t *testing.T, d *Dir, name string) *Lock {
	t.Helper()
	lock := begunMachine(t, d)
	errs := []error{lock.WriteRecord(Record{UID: lock.UID(), Phase: PhaseCreated, Spec: microvm.Spec{VCPUs: 2}}), lock.Bind(name),
		lock.WriteRun(Run{State: microvm.StateRunning})}
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	return lock
}

func date(text string) time.Time {
	when, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		panic(err)
	}
	return when
}

// The machine of testdata/v1.
var (
	v1Record = Record{
		UID: "abcdefghij23", Phase: PhaseCreated, Created: date("2026-11-24T10:00:00.123456789Z"),
		Spec: microvm.Spec{VCPUs: 2, MemoryMiB: 512, Kernel: "/srv/vmlinux", Initrd: "/srv/initrd", KernelArgs: "debug", Image: "/srv/debian.ext4", LayerMiB: 2048,
			Labels: map[string]string{"team/owner": "späti"}},
		Files: Files{Kernel: "/var/lib/microvm/state/store/files/aa", Initrd: "/var/lib/microvm/state/store/files/bb", Base: "/var/lib/microvm/state/store/files/cc"},
		Agent: true, Jailed: true, Slot: 7,
	}
	v1Run = Run{
		BootID: "7d9a1f4e-0000-4000-8000-000000000001", State: microvm.StatePaused, Started: date("2026-11-24T10:00:01Z"),
		Process:   &vmm.Identity{PID: 4242, StartTime: 99887766, BootID: "7d9a1f4e-0000-4000-8000-000000000001", Cgroup: "/microvm.slice/abcdefghij23"},
		Intent:    &Intent{Reason: microvm.ReasonStopped, Time: date("2026-11-24T10:00:02Z")},
		Committed: true, Timeline: []microvm.Mark{{Name: "spawn", Begin: 1000, End: 2000}, {Name: "vmm", Begin: 2000, End: 9000}},
	}
	v1Exit = microvm.Exit{Reason: microvm.ReasonForced, Code: -1, Signal: 9, Time: date("2026-11-24T10:00:03Z"), Evidence: []string{"the VMM ended by signal 9 (killed)"}}
)

// TestVersion1 reads a machine as version 1 of the records wrote it. Its files are never made anew: machines out there have such.
func TestVersion1(t *testing.T) {
	d := newDir(t)
	d.bootID = v1Run.BootID
	uid := v1Record.UID
	for name, dir := range map[string]string{"record.json": d.Machine(uid), "exit.json": d.Machine(uid), "run.json": d.Volatile(uid), "commit.json": d.Volatile(uid)} {
		text, err := os.ReadFile(filepath.Join("testdata", "v1", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(filepath.Join(dir, name), text, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	record, err := d.ReadRecord(uid)
	if err != nil || !reflect.DeepEqual(record, v1Record) {
		t.Errorf("record %+v, %v; want %+v", record, err, v1Record)
	}
	run, err := d.ReadRun(uid)
	if err != nil || !reflect.DeepEqual(*run, v1Run) {
		t.Errorf("run %+v, %v; want %+v", run, err, v1Run)
	}
	exit, err := d.ReadExit(uid)
	if err != nil || !reflect.DeepEqual(*exit, v1Exit) {
		t.Errorf("exit %+v, %v; want %+v", exit, err, v1Exit)
	}
	d.bootID = "another boot"
	if run, err := d.ReadRun(uid); err != nil || run != nil {
		t.Errorf("run of another boot: %+v, %v", run, err)
	}
}

// TestRecordIsRefused: what this program can't have written is not believed, and neither rewritten nor harmful to others.
func TestRecordIsRefused(t *testing.T) {
	for _, tc := range []struct {
		name  string
		spoil func(path string) error
		want  error
		text  string
	}{
		{"newer version", edit(`"version":1`, `"version":2`), microvm.ErrIncompatible, "version 2"},
		{"no version", edit(`"version":1`, `"version":0`), ErrDamaged, "version 0"},
		{"changed", edit(`"vcpus":2`, `"vcpus":3`), ErrDamaged, "checksum"},
		{"cut short", func(path string) error { return os.Truncate(path, 20) }, ErrDamaged, "unexpected end"},
		{"empty", func(path string) error { return os.Truncate(path, 0) }, os.ErrNotExist, "empty"}, // its first one, which a power loss has cut
		{"empty of one that has run", func(path string) error {
			return errors.Join(os.Truncate(path, 0), os.WriteFile(filepath.Join(filepath.Dir(path), "started"), nil, 0o600))
		}, ErrDamaged, "unexpected end"},
		{"huge", func(path string) error { return os.Truncate(path, 1<<30) }, ErrDamaged, "larger"},
		{"symbolic link", func(path string) error {
			return errors.Join(os.Rename(path, path+".real"), os.Symlink(path+".real", path))
		}, ErrDamaged, "symbolic link"},
		{"hard link", func(path string) error { return os.Link(path, path+".other") }, ErrDamaged, "2 links"},
		{"readable by others", func(path string) error { return os.Chmod(path, 0o644) }, ErrDamaged, "chmod 0600"},
		{"writable by its group", func(path string) error { return os.Chmod(path, 0o620) }, ErrDamaged, "lets others in"},
		{"directory", func(path string) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) }, nil, "directory"},
		{"FIFO", func(path string) error { return errors.Join(os.Remove(path), syscall.Mkfifo(path, 0o600)) }, ErrDamaged, "mode"},
		{"another's", func(path string) error { return os.Chown(path, 12345, -1) }, ErrDamaged, "belongs to user 12345"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.name == "another's" && os.Geteuid() != 0 {
				return // only root can give a file away
			}
			d := newDir(t)
			lock, other := newMachine(t, d, "one"), newMachine(t, d, "other")
			path := filepath.Join(d.Machine(lock.UID()), "record.json")
			if _, err := d.ReadRecord(lock.UID()); err != nil {
				t.Fatal(err)
			}
			if err := tc.spoil(path); err != nil {
				t.Fatal(err)
			}
			before := content(path)
			_, err := d.ReadRecord(lock.UID())
			if err == nil || tc.want != nil && !errors.Is(err, tc.want) || !strings.Contains(err.Error(), tc.text) || !strings.Contains(err.Error(), path) {
				t.Errorf("%v, want %v that says %q and the file", err, tc.want, tc.text)
			}
			if content(path) != before {
				t.Error("it was rewritten")
			}
			if _, err := d.ReadRecord(other.UID()); err != nil {
				t.Errorf("the other machine: %v", err)
			}
			if uids, err := d.UIDs(); err != nil || len(uids) != 2 {
				t.Errorf("machines %q, %v", uids, err)
			}
		})
	}
}

func edit(from, to string) func(path string) error {
	return func(path string) error {
		text, err := os.ReadFile(path)
		if err == nil && !strings.Contains(string(text), from) {
			err = errors.New("nothing to edit in " + string(text))
		}
		return errors.Join(err, os.WriteFile(path, []byte(strings.Replace(string(text), from, to, 1)), 0o600))
	}
}

func content(path string) string {
	if info, err := os.Lstat(path); err != nil || !info.Mode().IsRegular() || info.Size() > 1<<20 {
		return ""
	}
	text, _ := os.ReadFile(path)
	return string(text)
}

// TestNewerDirectory: one of a newer layout is refused, and not touched.
func TestNewerDirectory(t *testing.T) {
	root := t.TempDir()
	dir, sockets := filepath.Join(root, "state"), filepath.Join(root, "run")
	if _, err := Open(dir, Layout{SocketDir: sockets}); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.RemoveAll(sockets), os.RemoveAll(filepath.Join(dir, "machines")), os.WriteFile(filepath.Join(dir, "version"), []byte("2\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	before := tree(t, root)
	if _, err := Open(dir, Layout{SocketDir: sockets}); !errors.Is(err, microvm.ErrIncompatible) || !strings.Contains(err.Error(), "version 2") {
		t.Errorf("open: %v", err)
	}
	if after := tree(t, root); !reflect.DeepEqual(before, after) {
		t.Errorf("it was changed: %v, before %v", after, before)
	}
}

func tree(t *testing.T, root string) map[string]fs.FileMode {
	t.Helper()
	found := map[string]fs.FileMode{}
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err == nil {
			found[path] = entry.Type()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestOpenRefusesDirectories that others can change.
func TestOpenRefusesDirectories(t *testing.T) {
	for name, spoil := range map[string]func(dir string) error{
		"writable by all": func(dir string) error { return errors.Join(os.Mkdir(dir, 0o700), os.Chmod(dir, 0o777)) },
		"symbolic link":   func(dir string) error { return errors.Join(os.Mkdir(dir+".real", 0o700), os.Symlink(dir+".real", dir)) },
		"file":            func(dir string) error { return os.WriteFile(dir, nil, 0o600) },
	} {
		for _, which := range []string{"state", "run"} {
			root := t.TempDir()
			if err := spoil(filepath.Join(root, which)); err != nil {
				t.Fatal(err)
			}
			if _, err := Open(filepath.Join(root, "state"), Layout{SocketDir: filepath.Join(root, "run")}); !errors.Is(err, microvm.ErrInvalid) {
				t.Errorf("%s, %s: %v, want ErrInvalid", which, name, err)
			}
		}
	}
	newDir(t)
}

// TestFilesAreOurs: nothing that is made lets others in.
func TestFilesAreOurs(t *testing.T) {
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	d := newDir(t)
	lock := newMachine(t, d, "one")
	if err := errors.Join(lock.Commit(nil), lock.WriteExit(microvm.Exit{}), lock.Begin(time.Now())); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(filepath.Dir(d.Root()), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || path == filepath.Dir(d.Root()) || entry.Type() == fs.ModeSymlink {
			return err
		}
		info, err := entry.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestBegunNow: a run of this boot is told from one of another, also where an older program kept its time only.
func TestBegunNow(t *testing.T) {
	d := newDir(t)
	lock := newMachine(t, d, "one")
	path := filepath.Join(d.Machine(lock.UID()), "started")
	now := func(want bool, what string) {
		t.Helper()
		if got, err := d.BegunNow(lock.UID()); err != nil || got != want {
			t.Errorf("%s: %t, %v", what, got, err)
		}
	}
	now(false, "never")
	if err := lock.Begin(time.Now().Add(-100 * 24 * time.Hour)); err != nil { // whatever its time: the clock may have been set
		t.Fatal(err)
	}
	now(true, "this boot")
	another := *d
	another.bootID = strings.Repeat("0", len(d.bootID))
	if err := (&Lock{dir: &another, uid: lock.UID()}).Begin(time.Now()); err != nil {
		t.Fatal(err)
	}
	now(false, "another boot")
	for when, want := range map[time.Time]bool{time.Now(): true, time.Now().Add(-100 * 365 * 24 * time.Hour): false} {
		if err := errors.Join(os.Truncate(path, 0), os.Chtimes(path, when, when)); err != nil {
			t.Fatal(err)
		}
		now(want, "begun at "+when.String())
	}
	when := time.Now().Add(-time.Hour).Round(0)
	if err := lock.Begin(when); err != nil {
		t.Fatal(err)
	}
	now(true, "this boot again")
	if begun, ok := d.Begun(lock.UID()); !ok || !begun.Equal(when) {
		t.Errorf("begun %v, %t; want %v", begun, ok, when)
	}
}
