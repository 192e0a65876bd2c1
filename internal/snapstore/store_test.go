//go:build linux

package snapstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/record"
	"github.com/tangle-network/microvm-runtime/internal/state"
)

const page = 4096

func newStore(t testing.TB) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "snapshots"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// sparse makes a file of so many pages, with those that are given: each is full of its letter.
func sparse(t testing.TB, path string, pages int64, data map[int64]byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	err = f.Truncate(pages * page)
	for at, letter := range data {
		_, failed := f.WriteAt(bytes.Repeat([]byte{letter}, page), at*page)
		err = errors.Join(err, failed)
	}
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// memoryPages is large enough that holes show.
const memoryPages = 2048

// draft begins a snapshot and fills it. Parent is that of a diff.
func draft(t testing.TB, s *Store, parent string, memory map[int64]byte) (*Draft, *Manifest) {
	t.Helper()
	d, err := s.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	sparse(t, d.Path(State), 1, map[int64]byte{0: 's'})
	sparse(t, d.Path(Memory), memoryPages, memory)
	sparse(t, d.Path(Disk), 512, map[int64]byte{3: 'd'})
	m := &Manifest{Kind: microvm.SnapshotFull, Parent: parent, Created: time.Now().Round(0), Machine: state.NewUID(), Layout: 1, Firecracker: "1.12.1", Spec: microvm.Spec{VCPUs: 1, MemoryMiB: 8, Diskless: true}}
	if parent != "" {
		m.Kind = microvm.SnapshotDiff
	}
	return d, m
}

// commit is what a driver does with a draft that is filled.
func commit(ctx context.Context, d *Draft, m *Manifest, name string) (err error) {
	if err = d.Seal(ctx, name, m); err == nil {
		err = d.Place()
	}
	if err == nil {
		if err = d.Bind(name); err != nil {
			err = errors.Join(err, d.Unbind(name))
		}
	}
	return errors.Join(err, d.Close())
}

// snapshot makes one.
func snapshot(t testing.TB, s *Store, name, parent string, memory map[int64]byte) Manifest {
	t.Helper()
	d, m := draft(t, s, parent, memory)
	if err := commit(t.Context(), d, m, name); err != nil {
		t.Fatal(err)
	}
	return *m
}

func nobody() (string, error) { return "", nil }

// listed returns the names of all snapshots, and fails the test for one that can't be read.
func listed(t testing.TB, s *Store) (names []string) {
	t.Helper()
	all, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range all {
		if one.Problem != nil {
			t.Errorf("%s: %v", one.Name, one.Problem)
		}
		names = append(names, one.Name)
	}
	return names
}

// entries returns what is in one of the store's directories.
func entries(t testing.TB, s *Store, dir string) (names []string) {
	t.Helper()
	all, err := os.ReadDir(filepath.Join(s.dir, dir))
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range all {
		names = append(names, entry.Name())
	}
	return names
}

// TestSnapshotIsFound by its name and its uid, as it was written down, until it is deleted.
func TestSnapshotIsFound(t *testing.T) {
	s := newStore(t)
	m := snapshot(t, s, "vm/warm", "", map[int64]byte{5: 'a'})
	for _, ref := range []string{"vm/warm", m.UID} {
		if uid, err := s.Lookup(ref); err != nil || uid != m.UID {
			t.Errorf("%s: %q, %v", ref, uid, err)
		}
	}
	for _, ref := range []string{"vm/cold", "vm", "", "../x", "vm/..", "aaaaaaaaaaaa", m.UID + "/" + m.UID} {
		if uid, err := s.Lookup(ref); !errors.Is(err, microvm.ErrNotFound) {
			t.Errorf("%q: %q, %v", ref, uid, err)
		}
	}
	got, err := s.Read(m.UID)
	if err != nil || fmt.Sprint(got) != fmt.Sprint(m) || got.Files[Memory].Size != memoryPages*page || got.Files[Memory].Data > 64*page {
		t.Errorf("%+v, %v, want %+v", got, err, m)
	}
	for _, file := range []string{State, Memory, Disk} {
		if info, err := os.Lstat(s.Path(&m, file)); err != nil || info.Mode() != 0o444 {
			t.Error(file, info.Mode(), err)
		}
	}
	if err := s.Delete(t.Context(), m.UID, nobody); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Lookup(m.UID); !errors.Is(err, microvm.ErrNotFound) {
		t.Error(err)
	}
	for _, dir := range []string{"names", "all", "new"} {
		if left := entries(t, s, dir); len(left) > 0 {
			t.Errorf("%s has %q", dir, left)
		}
	}
	if err := s.Delete(t.Context(), m.UID, nobody); !errors.Is(err, microvm.ErrNotFound) {
		t.Error(err)
	}
	snapshot(t, s, "vm/warm", "", nil) // the name is free again
}

// TestPathsOfAnyForm: what a directory's name has means nothing, and nobody's snapshot is taken for a leftover by it.
func TestPathsOfAnyForm(t *testing.T) {
	s, err := Open(filepath.Join(t.TempDir(), "[a]*?"))
	if err != nil {
		t.Fatal(err)
	}
	snapshot(t, s, "vm/warm", "", map[int64]byte{1: 'a'})
	if removed, err := s.Sweep(); err != nil || len(removed) > 0 {
		t.Errorf("removed %q, %v", removed, err)
	}
	if names := listed(t, s); !slices.Equal(names, []string{"vm/warm"}) {
		t.Errorf("%q", names)
	}
	if sum, err := s.Bytes(); err != nil || sum == 0 {
		t.Error(sum, err)
	}
}

// TestNamesThatCanNotBeRead: nothing is a leftover while it is not known what has a name.
func TestNamesThatCanNotBeRead(t *testing.T) {
	s := newStore(t)
	m := snapshot(t, s, "vm/warm", "", nil)
	names, away := filepath.Join(s.dir, "names"), filepath.Join(s.dir, "away")
	if err := errors.Join(os.Rename(names, away), os.WriteFile(names, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if removed, err := s.Sweep(); err == nil || len(removed) > 0 {
		t.Errorf("removed %q, %v", removed, err)
	}
	if _, err := s.List(); err == nil {
		t.Error("there seem to be none")
	}
	if err := errors.Join(os.Remove(names), os.Rename(away, names)); err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(t.Context(), m.UID); err != nil {
		t.Error(err)
	}
}

// TestWhatIsNotOurs: what somebody else has put among the names, or the snapshots, is no snapshot, is not followed, and keeps nobody from deleting those that are.
func TestWhatIsNotOurs(t *testing.T) {
	s := newStore(t)
	m := snapshot(t, s, "vm/warm", "", nil)
	outside := t.TempDir()
	precious := filepath.Join(outside, "precious")
	for link, to := range map[string]string{"names/evil": outside, "names/vm/elsewhere": "/etc/passwd", "names/vm/more": "../../all/../../" + m.UID, "all/aaaaaaaaaaaa": outside, "new/bbbbbbbbbbbb": outside, "new/.removed-cccccccccccc": outside} {
		if err := os.Symlink(to, filepath.Join(s.dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.WriteFile(precious, []byte("precious"), 0o600), os.WriteFile(s.link("vm/file"), nil, 0o600), os.Mkdir(s.link("vm/dir"), 0o700)); err != nil {
		t.Fatal(err)
	}
	if names := listed(t, s); !slices.Equal(names, []string{"vm/warm"}) {
		t.Errorf("%q", names)
	}
	if removed, err := s.Sweep(); err != nil || len(removed) > 0 {
		t.Errorf("removed %q, %v", removed, err)
	}
	for _, ref := range []string{"evil/precious", "vm/elsewhere", "vm/file", "vm/dir"} {
		if uid, err := s.Lookup(ref); err == nil {
			t.Errorf("%s is %s", ref, uid)
		}
	}
	if err := s.Delete(t.Context(), m.UID, nobody); err != nil {
		t.Error(err)
	}
	if entries, err := os.ReadDir(outside); err != nil || len(entries) != 1 {
		t.Errorf("outside is %v, %v", entries, err)
	}
	if text, err := os.ReadFile(precious); err != nil || string(text) != "precious" {
		t.Error(string(text), err)
	}
}

// TestNameIsTaken by one of those who want it at once, and the others leave nothing.
func TestNameIsTaken(t *testing.T) {
	s := newStore(t)
	var wg sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		d, m := draft(t, s, "", nil)
		wg.Go(func() { errs[i] = commit(t.Context(), d, m, "vm/warm") })
	}
	wg.Wait()
	made := 0
	for _, err := range errs {
		if err == nil {
			made++
		} else if !errors.Is(err, microvm.ErrExists) {
			t.Error(err)
		}
	}
	if names := listed(t, s); made != 1 || len(names) != 1 || len(entries(t, s, "all")) != 1 || len(entries(t, s, "new")) != 0 {
		t.Errorf("%d were made: %q, %q, %q", made, names, entries(t, s, "all"), entries(t, s, "new"))
	}
}

// TestBeginWhileSwept: a draft is never taken for a leftover between its making and its lock.
func TestBeginWhileSwept(t *testing.T) {
	s := newStore(t)
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if _, err := s.Sweep(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 300 {
		d, err := s.Begin(t.Context())
		if err == nil {
			err = errors.Join(os.WriteFile(d.Path(State), nil, 0o600), d.Close())
		}
		if err != nil {
			t.Error(err)
			break
		}
	}
	close(done)
	wg.Wait()
}

// TestHoldAgainstDelete: who holds a snapshot keeps it, and who comes while it is deleted finds none.
func TestHoldAgainstDelete(t *testing.T) {
	s := newStore(t)
	m := snapshot(t, s, "vm/warm", "", nil)
	hold, held, err := s.Hold(t.Context(), m.UID)
	if err != nil || held.Name != "vm/warm" {
		t.Fatal(held, err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Delete(ended, m.UID, nobody); !errors.Is(err, microvm.ErrBusy) {
		t.Error(err)
	}
	second, _, err := s.Hold(t.Context(), m.UID)
	if err != nil {
		t.Fatal(err)
	}
	hold.Release()
	second.Release()
	entered, goOn, deleted := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		deleted <- s.Delete(t.Context(), m.UID, func() (string, error) {
			close(entered)
			<-goOn
			return "", nil
		})
	}()
	<-entered
	waiting := make(chan error, 1)
	go func() {
		_, _, err := s.Hold(t.Context(), m.UID)
		waiting <- err
	}()
	close(goOn)
	if err := <-deleted; err != nil {
		t.Error(err)
	}
	if err := <-waiting; !errors.Is(err, microvm.ErrNotFound) {
		t.Error("held what was deleted:", err)
	}
}

// TestUnnamedTogether: who frees a machine's last name takes the directory of its names away under who has freed another.
func TestUnnamedTogether(t *testing.T) {
	s := newStore(t)
	for range 500 {
		var wg sync.WaitGroup
		for i := range 4 {
			d := &Draft{store: s, uid: state.NewUID()}
			name := fmt.Sprint("vm/", i)
			if err := d.Bind(name); err != nil {
				t.Fatal(err)
			}
			wg.Go(func() {
				if err := d.Unbind(name); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if left := entries(t, s, "names"); len(left) > 0 {
			t.Fatalf("left: %q", left)
		}
	}
}

// TestDeleteNamesWhoNeedsIt: the diff that is over it, or a machine, and nothing of it goes then.
func TestDeleteNamesWhoNeedsIt(t *testing.T) {
	s := newStore(t)
	below := snapshot(t, s, "vm/below", "", map[int64]byte{1: 'a'})
	over := snapshot(t, s, "vm/over", below.UID, map[int64]byte{2: 'b'})
	if err := s.Delete(t.Context(), below.UID, nobody); !errors.Is(err, microvm.ErrBusy) || !strings.Contains(err.Error(), "vm/over") {
		t.Error(err)
	}
	if err := s.Delete(t.Context(), over.UID, func() (string, error) { return "clone7", nil }); !errors.Is(err, microvm.ErrBusy) || !strings.Contains(err.Error(), "clone7") {
		t.Error(err)
	}
	if err := s.Verify(t.Context(), over.UID); err != nil {
		t.Error(err)
	}
	for _, uid := range []string{over.UID, below.UID} {
		if err := s.Delete(t.Context(), uid, nobody); err != nil {
			t.Error(err)
		}
	}
}

// TestDamagedManifest is told, and can be deleted, also where there are several.
func TestDamagedManifest(t *testing.T) {
	s := newStore(t)
	good := snapshot(t, s, "vm/good", "", nil)
	var torn []string
	for i := range 2 {
		m := snapshot(t, s, fmt.Sprintf("vm/torn%d", i), "", nil)
		path := s.file(m.UID, manifestFile)
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, text[:len(text)*(i+1)/3], 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Read(m.UID); !errors.Is(err, record.ErrDamaged) {
			t.Error(err)
		}
		torn = append(torn, m.UID)
	}
	all, err := s.List()
	if err != nil || len(all) != 3 || all[0].Problem != nil || all[1].Problem == nil || all[2].Problem == nil || all[1].Name != "vm/torn0" {
		t.Errorf("%+v, %v", all, err)
	}
	if err := s.Delete(t.Context(), good.UID, nobody); err == nil {
		t.Error("a torn one may be over it")
	}
	for _, uid := range append(torn, good.UID) {
		if err := s.Delete(t.Context(), uid, nobody); err != nil {
			t.Error(err)
		}
	}
}

// TestManifestOfAnotherVersion: version 1 stays readable, a newer one is refused and can't be deleted from under its child.
func TestManifestOfAnotherVersion(t *testing.T) {
	s := newStore(t)
	uid := "mbrxw2lomzxw" // that of testdata
	text, err := os.ReadFile("testdata/v1/manifest.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.MkdirAll(s.path(uid), 0o700), os.Mkdir(s.link("vm"), 0o700), os.Symlink("../../all/"+uid, s.link("vm/warm")), os.WriteFile(s.file(uid, manifestFile), text, 0o600)); err != nil {
		t.Fatal(err)
	}
	m, err := s.Read(uid)
	if err != nil || m.Kind != microvm.SnapshotDiff || m.Parent != "aaaaaaaaaaaa" || m.Spec.MemoryMiB != 128 || m.Files[Memory].Data != 8192 || m.Shared.Base != "/state/store/files/b" || m.CPU.Flags[0] != "avx" ||
		m.Labels["team"] != "a" || m.Stood != 7*time.Millisecond || m.Created.Year() != 2026 || !m.Agent || !m.Ephemeral {
		t.Errorf("%+v, %v", m, err)
	}
	if err := record.Write(s.file(uid, manifestFile), Version+1, m, true); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Read(uid); !errors.Is(err, microvm.ErrIncompatible) {
		t.Error(err)
	}
	good := snapshot(t, s, "vm/good", "", nil)
	if err := s.Delete(t.Context(), good.UID, nobody); !errors.Is(err, microvm.ErrIncompatible) {
		t.Error("the newer one may be over it:", err)
	}
}

// TestManifestNamesNothingOutside of its snapshot.
func TestManifestNamesNothingOutside(t *testing.T) {
	s := newStore(t)
	good := snapshot(t, s, "vm/warm", "", nil)
	for what, change := range map[string]func(m *Manifest){
		"a path":          func(m *Manifest) { m.Files[State] = File{Name: "../../x"} },
		"another's file":  func(m *Manifest) { m.Files[Disk] = File{Name: manifestFile} },
		"an unknown file": func(m *Manifest) { m.Files["more"] = File{Name: "memory"} },
		"no memory":       func(m *Manifest) { delete(m.Files, Memory) },
		"another uid":     func(m *Manifest) { m.UID = "aaaaaaaaaaaa" },
		"a diff of none":  func(m *Manifest) { m.Kind = microvm.SnapshotDiff },
		"a full of some":  func(m *Manifest) { m.Parent = "aaaaaaaaaaaa" },
		"itself":          func(m *Manifest) { m.Kind, m.Parent = microvm.SnapshotDiff, m.UID },
	} {
		m, err := s.Read(good.UID)
		if err != nil {
			t.Fatal(what, err)
		}
		change(&m)
		if err := record.Write(s.file(good.UID, manifestFile), Version, m, false); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Read(good.UID); !errors.Is(err, record.ErrDamaged) {
			t.Errorf("%s: %v", what, err)
		}
		if err := record.Write(s.file(good.UID, manifestFile), Version, good, false); err != nil {
			t.Fatal(err)
		}
	}
}

// random is memory that differs in each page.
func random(pages int) map[int64]byte {
	data := map[int64]byte{}
	for range pages {
		data[rand.Int64N(memoryPages)] = byte(rand.IntN(256))
	}
	return data
}
