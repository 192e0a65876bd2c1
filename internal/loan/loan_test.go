//go:build linux

package loan

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
)

// gone are borrowers that are no more.
type gone map[string]bool

func newBook(t *testing.T, gone gone) *Book {
	t.Helper()
	b, err := OpenBook(filepath.Join(t.TempDir(), "loans"), func(id string) bool { return !gone[id] })
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func newThing(t *testing.T, mode os.FileMode) *Thing {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk")
	if err := errors.Join(os.WriteFile(path, make([]byte, 4096), 0o600), os.Chmod(path, mode)); err != nil {
		t.Fatal(err)
	}
	return reopen(t, path)
}

func reopen(t *testing.T, path string) *Thing {
	t.Helper()
	thing, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { thing.Close() })
	return thing
}

func (b *Book) giveBack(t *testing.T, id string) []string {
	t.Helper()
	remarks, err := b.Return(id)
	if err != nil {
		t.Fatal(err)
	}
	return remarks
}

// now says whose a file is, and its mode.
func now(t *testing.T, path string) string {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	stat := info.Sys().(*syscall.Stat_t)
	return fmt.Sprintf("%d:%d %o", stat.Uid, stat.Gid, stat.Mode&0o7777)
}

// TestOneAtATime: a thing is one borrower's, by whatever name it is asked for, until it is returned or its borrower is gone.
func TestOneAtATime(t *testing.T) {
	gone := gone{}
	b, thing := newBook(t, gone), newThing(t, 0o600)
	link := thing.Path + ".link"
	if err := os.Link(thing.Path, link); err != nil {
		t.Fatal(err)
	}
	other := reopen(t, link)
	if !thing.Same(other) || thing.Same(newThing(t, 0o600)) {
		t.Error("a file is not told from others")
	}
	if err := b.Holds("one", thing); !errors.Is(err, microvm.ErrState) {
		t.Errorf("nobody has it: %v", err)
	}
	for _, step := range []struct {
		id   string
		do   func()
		busy string
	}{
		{"one", nil, ""}, {"one", nil, ""}, {"two", nil, "one"}, {"two", func() { b.giveBack(t, "three") }, "one"}, {"two", func() { b.giveBack(t, "one") }, ""},
		{"one", nil, "two"}, {"one", func() { gone["two"] = true }, ""},
	} {
		if step.do != nil {
			step.do()
		}
		err := b.Take(Borrower{ID: step.id}, other)
		held := (*HeldError)(nil)
		if step.busy == "" && err != nil || step.busy != "" && (!errors.Is(err, microvm.ErrBusy) || !errors.As(err, &held) || held.Holder != step.busy) {
			t.Errorf("%s takes it: %v, want that %q has it", step.id, err, step.busy)
		}
	}
	if err := b.Holds("one", thing); err != nil {
		t.Error(err)
	}
	if err := b.Holds("two", thing); !errors.Is(err, microvm.ErrBusy) {
		t.Errorf("another has it: %v", err)
	}
}

func TestOneOfManyAtOnce(t *testing.T) {
	b, thing := newBook(t, gone{}), newThing(t, 0o600)
	var won atomic.Int32
	var all sync.WaitGroup
	for i := range 16 {
		all.Go(func() {
			if err := b.Take(Borrower{ID: fmt.Sprint(i)}, thing); err == nil {
				won.Add(1)
			} else if !errors.Is(err, microvm.ErrBusy) {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if won.Load() != 1 {
		t.Errorf("%d got it", won.Load())
	}
}

// TestDamagedLoan: nobody knows whose the thing is, so nobody gets it, and others are returned all the same.
func TestDamagedLoan(t *testing.T) {
	b, thing, good := newBook(t, gone{}), newThing(t, 0o600), newThing(t, 0o600)
	for _, thing := range []*Thing{thing, good} {
		if err := b.Take(Borrower{ID: "one"}, thing); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Truncate(b.path(b.key(thing)), 3); err != nil {
		t.Fatal(err)
	}
	if err := b.Take(Borrower{ID: "two"}, thing); !errors.Is(err, microvm.ErrBusy) || !strings.Contains(err.Error(), b.path(b.key(thing))) {
		t.Errorf("%v, want ErrBusy that names the loan", err)
	}
	if remarks := b.giveBack(t, "one"); len(remarks) != 1 {
		t.Errorf("remarks %q", remarks)
	}
	if err := b.Take(Borrower{ID: "two"}, good); err != nil {
		t.Error(err)
	}
}

// TestHostFilesComeBack: whatever happened between, a file gets back what it had, and nothing else is touched.
func TestHostFilesComeBack(t *testing.T) {
	ring.Host(t)
	const before, lent = "7001:7002 6640", "8001:8001 600"
	for name, c := range map[string]struct {
		between func(b *Book, path string) error
		after   string
		remark  string
	}{
		"nothing happened": {nil, before, ""},
		"taken again": {func(b *Book, path string) error {
			thing, err := Open(path)
			if err != nil {
				return err
			}
			return errors.Join(b.Take(Borrower{"one", 8001, 8001}, thing), thing.Close())
		}, before, ""},
		"the VMM set the user id on execution": {func(_ *Book, path string) error { return syscall.Chmod(path, 0o4777) }, before, ""},
		"killed before the owner was changed":  {func(_ *Book, path string) error { return errors.Join(os.Chown(path, 7001, 7002)) }, before, ""},
		"killed before its mode was given back": {func(_ *Book, path string) error {
			return errors.Join(os.Chown(path, 7001, 7002), os.Chmod(path, 0o600))
		}, before, ""},
		"the administrator gave it to another": {func(_ *Book, path string) error { return errors.Join(os.Chown(path, 9001, 9001)) }, "9001:9001 600", "belongs to user 9001"},
		"another file is at the path": {func(_ *Book, path string) error {
			return errors.Join(os.Rename(path, path+".old"), os.WriteFile(path, make([]byte, 4096), 0o600))
		}, "0:0 600", "not what was lent"},
		"a symbolic link is at the path": {func(_ *Book, path string) error {
			return errors.Join(os.Rename(path, path+".old"), os.Symlink(path+".old", path))
		}, "0:0 777", "symbolic link"},
		"nothing is at the path": {func(_ *Book, path string) error { return os.Remove(path) }, "", "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			b, thing := newBook(t, gone{}), newThing(t, 0o600)
			path := thing.Path
			if err := errors.Join(os.Chown(path, 7001, 7002), syscall.Chmod(path, 0o6640)); err != nil {
				t.Fatal(err)
			}
			if err := b.Take(Borrower{"one", 8001, 8001}, reopen(t, path)); err != nil {
				t.Fatal(err)
			}
			if got := now(t, path); got != lent {
				t.Errorf("lent as %s, want %s", got, lent)
			}
			if c.between != nil {
				if err := c.between(b, path); err != nil {
					t.Fatal(err)
				}
			}
			remarks := strings.Join(b.giveBack(t, "one"), "; ")
			if (remarks == "") != (c.remark == "") || !strings.Contains(remarks, c.remark) {
				t.Errorf("remarks %q, want %q", remarks, c.remark)
			}
			if c.after != "" {
				if got := now(t, path); got != c.after {
					t.Errorf("afterwards %s, want %s", got, c.after)
				}
			}
			if left, err := os.ReadDir(filepath.Join(b.dir, "out")); err != nil || len(left) > 0 {
				t.Errorf("loans %v, %v", left, err)
			}
		})
	}
}

// TestHostOwnerIsRemembered: who takes what a lost borrower had does not take its user for the owner.
func TestHostOwnerIsRemembered(t *testing.T) {
	ring.Host(t)
	gone := gone{}
	b, thing := newBook(t, gone), newThing(t, 0o644)
	for i, id := range []string{"one", "two"} {
		if err := b.Take(Borrower{id, 8001 + i, 8001 + i}, thing); err != nil {
			t.Fatal(err)
		}
		if got, want := now(t, thing.Path), fmt.Sprintf("%d:%d 600", 8001+i, 8001+i); got != want {
			t.Errorf("lent as %s, want %s", got, want)
		}
		gone[id] = true
	}
	if remarks, err := b.Sweep(); err != nil || len(remarks) > 0 {
		t.Errorf("%q, %v", remarks, err)
	}
	if got := now(t, thing.Path); got != "0:0 644" {
		t.Errorf("afterwards %s", got)
	}
}
