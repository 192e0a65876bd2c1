//go:build linux

package snapstore

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/record"
)

func newStore(t *testing.T) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "snapshots"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// draft is one whose files are written.
func (s *Store) draft(t *testing.T, memory string) *Draft {
	t.Helper()
	d, err := s.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for file, text := range map[string]string{State: "state", Memory: memory, Disk: "disk"} {
		if err := os.WriteFile(d.Path(file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

// make makes a snapshot, of a kind over parent where that is not empty.
func (s *Store) make(t *testing.T, name, memory, parent string) Manifest {
	t.Helper()
	d := s.draft(t, memory)
	m := Manifest{Kind: microvm.SnapshotFull, Created: time.Unix(1, 0)}
	if parent != "" {
		m.Kind, m.Parent = microvm.SnapshotDiff, parent
	}
	if err := errors.Join(d.Seal(t.Context(), name, &m), d.Place(), d.Bind(name), d.Close()); err != nil {
		t.Fatal(err)
	}
	return m
}

func nobody() (string, error) { return "", nil }

func (s *Store) listed(t *testing.T) (names []string) {
	t.Helper()
	all, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range all {
		names = append(names, one.Name)
	}
	return names
}

// empty fails the test unless nothing is left of any snapshot.
func (s *Store) empty(t *testing.T) {
	t.Helper()
	left, _ := filepath.Glob(filepath.Join(s.dir, "*", "*"))
	if len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

func TestSnapshotIsFoundByNameAndUID(t *testing.T) {
	s := newStore(t)
	m := s.make(t, "one/warm", "memory", "")
	s.make(t, "a/first", "memory", "")
	for _, ref := range []string{"one/warm", m.UID} {
		if uid, err := s.Lookup(ref); err != nil || uid != m.UID {
			t.Errorf("%s: %s, %v", ref, uid, err)
		}
	}
	for _, ref := range []string{"one/other", "warm", "one/..", "", "aaaaaaaaaaaa"} {
		if _, err := s.Lookup(ref); !errors.Is(err, microvm.ErrNotFound) {
			t.Errorf("%q: %v", ref, err)
		}
	}
	if got := s.listed(t); !slices.Equal(got, []string{"a/first", "one/warm"}) {
		t.Errorf("list %q", got)
	}
	if info, err := os.Stat(s.Path(&m, Memory)); err != nil || info.Mode() != 0o444 || m.Files[Memory].Size != 6 {
		t.Errorf("memory %v, %v, %+v", info.Mode(), err, m.Files)
	}
}

// TestUnnamedIsNone: a draft that is not bound is no snapshot, however far it came, and goes with its maker.
func TestUnnamedIsNone(t *testing.T) {
	for name, until := range map[string]func(d *Draft, m *Manifest) error{
		"begun":  func(*Draft, *Manifest) error { return nil },
		"sealed": func(d *Draft, m *Manifest) error { return d.Seal(t.Context(), "one/warm", m) },
		"placed": func(d *Draft, m *Manifest) error { return errors.Join(d.Seal(t.Context(), "one/warm", m), d.Place()) },
		"bound and unbound": func(d *Draft, m *Manifest) error {
			return errors.Join(d.Seal(t.Context(), "one/warm", m), d.Place(), d.Bind("one/warm"), d.Unbind("one/warm"))
		},
	} {
		for _, killed := range []bool{false, true} {
			s := newStore(t)
			d := s.draft(t, "memory")
			m := &Manifest{Kind: microvm.SnapshotFull}
			if err := until(d, m); err != nil {
				t.Fatal(err)
			}
			if removed, err := s.Sweep(); err != nil || len(removed) > 0 {
				t.Errorf("%s: what is being made was swept: %q, %v", name, removed, err)
			}
			if got := s.listed(t); len(got) > 0 {
				t.Errorf("%s: list %q", name, got)
			}
			if _, err := s.Lookup(d.UID()); !errors.Is(err, microvm.ErrNotFound) {
				t.Errorf("%s: %v", name, err)
			}
			if killed {
				d.lock.Close() // as the kernel does for who is killed
				if removed, err := s.Sweep(); err != nil || !slices.Equal(removed, []string{d.UID()}) {
					t.Errorf("%s: swept %q, %v", name, removed, err)
				}
			} else if err := d.Close(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			s.empty(t)
		}
	}
}

func TestNameIsTaken(t *testing.T) {
	s := newStore(t)
	first := s.make(t, "one/warm", "memory", "")
	d := s.draft(t, "other")
	if err := errors.Join(d.Seal(t.Context(), "one/warm", &Manifest{Kind: microvm.SnapshotFull}), d.Place()); err != nil {
		t.Fatal(err)
	}
	if err := d.Bind("one/warm"); !errors.Is(err, microvm.ErrExists) {
		t.Errorf("bind: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if uid, err := s.Lookup("one/warm"); err != nil || uid != first.UID {
		t.Errorf("%s, %v", uid, err)
	}
	if all, _ := filepath.Glob(filepath.Join(s.dir, "[an]*", "????????????")); len(all) != 1 {
		t.Errorf("there are %q", all)
	}
}

func TestDeleteNotWhatIsNeeded(t *testing.T) {
	s := newStore(t)
	parent := s.make(t, "one/first", "memory", "")
	child := s.make(t, "one/second", "memorx", parent.UID)
	if err := s.Delete(t.Context(), parent.UID, nobody); !errors.Is(err, microvm.ErrBusy) || !strings.Contains(err.Error(), "one/second") {
		t.Errorf("under another: %v", err)
	}
	if err := s.Delete(t.Context(), child.UID, func() (string, error) { return "two", nil }); !errors.Is(err, microvm.ErrBusy) || !strings.Contains(err.Error(), "two") {
		t.Errorf("in use: %v", err)
	}
	hold, _, err := s.Hold(t.Context(), child.UID)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := s.Delete(ctx, child.UID, nobody); !errors.Is(err, microvm.ErrBusy) {
		t.Errorf("held: %v", err)
	}
	hold.Release()
	for _, uid := range []string{child.UID, parent.UID} {
		if err := s.Delete(t.Context(), uid, nobody); err != nil {
			t.Error(err)
		}
		if err := s.Delete(t.Context(), uid, nobody); !errors.Is(err, microvm.ErrNotFound) {
			t.Errorf("once more: %v", err)
		}
		if _, _, err := s.Hold(t.Context(), uid); !errors.Is(err, microvm.ErrNotFound) {
			t.Errorf("held once it is gone: %v", err)
		}
	}
	s.empty(t)
}

// TestDamage: what is not what was written is found, and named; the rest is listed all the same, and what is damaged can be deleted.
func TestDamage(t *testing.T) {
	s := newStore(t)
	s.make(t, "one/good", "memory", "")
	for _, file := range []string{State, Memory, Disk} {
		m := s.make(t, "one/"+file, "memory", "")
		if err := s.Check(t.Context(), m.UID); err != nil {
			t.Error(err)
		}
		path := s.Path(&m, file)
		text, _ := os.ReadFile(path)
		text[len(text)-1] ^= 1
		if err := os.WriteFile(path, text, 0o444); err != nil {
			t.Fatal(err)
		}
		for _, check := range []func(context.Context, string) error{s.Verify, s.Check} {
			if err := check(t.Context(), m.UID); !errors.Is(err, microvm.ErrIncompatible) || !strings.Contains(err.Error(), file) {
				t.Errorf("%s: %v", file, err)
			}
		}
		os.Remove(path)
		if err := s.Verify(t.Context(), m.UID); !errors.Is(err, microvm.ErrIncompatible) {
			t.Errorf("without %s: %v", file, err)
		}
	}
	torn := s.make(t, "one/torn", "memory", "")
	path := filepath.Join(s.path(torn.UID), manifestFile)
	text, _ := os.ReadFile(path)
	if err := os.WriteFile(path, text[:len(text)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	all, err := s.List()
	if err != nil || len(all) != 5 || !errors.Is(all[4].Problem, record.ErrDamaged) || all[4].UID != torn.UID {
		t.Errorf("list %+v, %v", all, err)
	}
	if err := s.Delete(t.Context(), torn.UID, nobody); err != nil {
		t.Errorf("delete what is damaged: %v", err)
	}
}

// TestCheckRemembers: what was looked at is not looked at again in the same boot, also when it has got links since.
func TestCheckRemembers(t *testing.T) {
	s := newStore(t)
	m := s.make(t, "one/warm", "memory", "")
	if !s.isChecked(&m) {
		t.Error("what was just written is not known to be good")
	}
	if err := os.Link(s.Path(&m, Memory), filepath.Join(t.TempDir(), "link")); err != nil {
		t.Fatal(err)
	}
	if !s.isChecked(&m) {
		t.Error("a link makes it unknown")
	}
	s.bootID = "another"
	if s.isChecked(&m) {
		t.Error("it is known after a reboot")
	}
	if err := s.Check(t.Context(), m.UID); err != nil || !s.isChecked(&m) {
		t.Errorf("checked: %v", err)
	}
}

// TestFlatten merges a chain of three, of which each has a part.
func TestFlatten(t *testing.T) {
	s := newStore(t)
	const block = 4096
	write := func(name, parent string, parts map[int64]string) Manifest {
		t.Helper()
		d := s.draft(t, "")
		f, err := os.Create(d.Path(Memory))
		if err != nil {
			t.Fatal(err)
		}
		err = f.Truncate(4 * block)
		for at, text := range parts {
			_, failed := f.WriteAt([]byte(strings.Repeat(text, block)), at*block)
			err = errors.Join(err, failed)
		}
		m := Manifest{Kind: microvm.SnapshotFull}
		if parent != "" {
			m.Kind, m.Parent = microvm.SnapshotDiff, parent
		}
		if err := errors.Join(err, f.Close(), d.Seal(t.Context(), name, &m), d.Place(), d.Bind(name), d.Close()); err != nil {
			t.Fatal(err)
		}
		return m
	}
	a := write("one/a", "", map[int64]string{0: "a", 1: "a", 2: "a"})
	b := write("one/b", a.UID, map[int64]string{1: "b", 3: "b"})
	c := write("one/c", b.UID, map[int64]string{2: "\x00", 3: "c"})
	if err := s.Flatten(t.Context(), c.UID); err != nil {
		t.Fatal(err)
	}
	for _, uid := range []string{b.UID, a.UID} {
		if err := s.Delete(t.Context(), uid, nobody); err != nil {
			t.Error(err)
		}
	}
	m, err := s.Read(c.UID)
	if err != nil || m.Kind != microvm.SnapshotFull || m.Parent != "" {
		t.Fatalf("%+v, %v", m, err)
	}
	text, err := os.ReadFile(s.Path(&m, Memory))
	want := strings.Repeat("a", block) + strings.Repeat("b", block) + strings.Repeat("\x00", block) + strings.Repeat("c", block)
	if err != nil || string(text) != want {
		t.Errorf("merged wrongly: %v", err)
	}
	if err := errors.Join(s.Verify(t.Context(), c.UID), s.Flatten(t.Context(), c.UID)); err != nil {
		t.Error(err)
	}
}

// TestNewerManifest: one of a newer program is refused, and not taken for damage.
func TestNewerManifest(t *testing.T) {
	s := newStore(t)
	m := s.make(t, "one/warm", "memory", "")
	if err := record.Write(filepath.Join(s.path(m.UID), manifestFile), Version+1, m, false); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Read(m.UID); !errors.Is(err, microvm.ErrIncompatible) {
		t.Errorf("read: %v", err)
	}
}
