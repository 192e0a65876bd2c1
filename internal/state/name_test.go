//go:build linux

package state

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	microvm "github.com/tangle-network/microvm-runtime"
)

// TestNamesNeverMeet: names that some systems would fold into one are several.
func TestNamesNeverMeet(t *testing.T) {
	d := newDir(t)
	names := []string{"a.b", "a_b", "a-b", "A.b", "ab", "a.b.", "a..b", strings.Repeat("a", 64), strings.Repeat("a", 63)}
	for _, name := range names {
		newMachine(t, d, name)
	}
	seen := map[string]string{}
	for _, name := range names {
		uid, err := d.Lookup(name)
		if err != nil || seen[uid] != "" {
			t.Errorf("%q is %q, %v, as %q", name, uid, err, seen[uid])
		}
		seen[uid] = name
		if got, err := d.NameOf(uid); err != nil || got != name {
			t.Errorf("name of %q: %q, %v", name, got, err)
		}
	}
}

func TestLookupRefusesWhatIsNoName(t *testing.T) {
	d := newDir(t)
	lock := newMachine(t, d, "one")
	for _, ref := range []string{"", ".", "..", "../machines/" + lock.UID(), "one/", "-one", strings.Repeat("a", 65), "o\x00ne", "two"} {
		if uid, err := d.Lookup(ref); !errors.Is(err, microvm.ErrNotFound) {
			t.Errorf("%q: %q, %v, want ErrNotFound", ref, uid, err)
		}
	}
	for _, ref := range []string{"one", lock.UID()} {
		if uid, err := d.Lookup(ref); err != nil || uid != lock.UID() {
			t.Errorf("%q: %q, %v", ref, uid, err)
		}
	}
}

// TestNameBeforeUID: a machine may be called as another's uid, and is then what the name means.
func TestNameBeforeUID(t *testing.T) {
	d := newDir(t)
	one := newMachine(t, d, "one")
	two := newMachine(t, d, one.UID())
	if uid, err := d.Lookup(one.UID()); err != nil || uid != two.UID() {
		t.Errorf("%q, %v, want %q", uid, err, two.UID())
	}
}

func TestNameIsTakenOnce(t *testing.T) {
	d := newDir(t)
	one, two := newMachine(t, d, "one"), newMachine(t, d, "two")
	if err := two.Rename("one"); !errors.Is(err, microvm.ErrExists) {
		t.Errorf("rename: %v", err)
	}
	if err := one.Unbind(); err != nil {
		t.Fatal(err)
	}
	if err := two.Rename("one"); err != nil {
		t.Errorf("rename to a free name: %v", err)
	}
	if uid, err := d.Lookup("one"); err != nil || uid != two.UID() {
		t.Errorf("%q, %v", uid, err)
	}
	if d.Taken("two") {
		t.Error("the old name is taken still")
	}
}

// TestForeignLink: what this package did not make is no machine's name, and harms no others.
func TestForeignLink(t *testing.T) {
	d := newDir(t)
	lock := newMachine(t, d, "one")
	names := filepath.Join(d.Root(), "names")
	if err := errors.Join(os.Symlink("/etc", filepath.Join(names, "foreign")), os.WriteFile(filepath.Join(names, "file"), nil, 0o600), os.Mkdir(filepath.Join(names, "dir"), 0o700)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"foreign", "file", "dir"} {
		if _, err := d.Lookup(name); !errors.Is(err, ErrDamaged) {
			t.Errorf("lookup of %s: %v", name, err)
		}
	}
	if name, err := d.NameOf(lock.UID()); err != nil || name != "one" {
		t.Errorf("the other: %q, %v", name, err)
	}
}

// TestLockIsOnes: it is waited for until the context ends, by goroutines and by other openers, and is gone with its machine.
func TestLockIsOnes(t *testing.T) {
	d := newDir(t)
	uid := NewUID()
	lock, err := d.Create(t.Context(), uid)
	if err != nil {
		t.Fatal(err)
	}
	other, err := Open(d.root, d.layout) // as another process would
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []*Dir{d, other} {
		ctx, cancel := context.WithTimeout(t.Context(), 10_000_000)
		if _, err := dir.Lock(ctx, uid); !errors.Is(err, microvm.ErrBusy) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a lock that is held: %v", err)
		}
		cancel()
	}
	lock.Unlock()
	if lock, err = other.Lock(t.Context(), uid); err != nil {
		t.Fatal(err)
	}
	if err := lock.Remove(); err != nil {
		t.Error(err)
	}
	lock.Unlock()
	for _, dir := range []*Dir{d, other} {
		if _, err := dir.Lock(t.Context(), uid); !errors.Is(err, microvm.ErrNotFound) {
			t.Errorf("lock of one that is gone: %v", err)
		}
	}
	if entries, err := os.ReadDir(filepath.Join(d.root, "machines")); err != nil || len(entries) > 0 {
		t.Errorf("left: %v, %v", entries, err)
	}
}

// TestInterruptedRemovalIsFinished by whoever opens next.
func TestInterruptedRemovalIsFinished(t *testing.T) {
	d := newDir(t)
	lock := newMachine(t, d, "one")
	if err := errors.Join(lock.Unbind(), os.Rename(d.Machine(lock.UID()), d.Machine(removedPrefix+lock.UID()))); err != nil {
		t.Fatal(err)
	}
	if uids, err := d.UIDs(); err != nil || len(uids) > 0 {
		t.Errorf("machines %q, %v", uids, err)
	}
	if _, err := Open(d.root, d.layout); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(filepath.Join(d.root, "machines")); err != nil || len(entries) > 0 {
		t.Errorf("left: %v, %v", entries, err)
	}
}
