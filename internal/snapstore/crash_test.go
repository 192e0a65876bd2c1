//go:build linux

package snapstore

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	microvm "github.com/tangle-network/microvm-runtime"
)

// orderVariable tells this test's program, executed again, what to do with a store until it kills itself: "verb point directory uid".
const orderVariable = "MICROVM_TEST_SNAPSTORE"

// obey does it. It returns only when the point was not met.
func obey(order string) int {
	part := strings.SplitN(order, " ", 4)
	verb, point, dir, uid := part[0], part[1], part[2], part[3]
	s, err := Open(dir)
	if err != nil {
		return 1
	}
	s.Hook = func(at string) error {
		if at == point {
			return syscall.Kill(os.Getpid(), syscall.SIGKILL)
		}
		return nil
	}
	ctx := context.Background()
	switch verb {
	case "flatten":
		err = s.Flatten(ctx, uid)
	case "delete":
		err = s.Delete(ctx, uid, nobody)
	case "commit":
		err = commitOrder(ctx, s)
	case "import":
		err = importOrder(ctx, s, uid)
	}
	if err != nil {
		os.Stderr.WriteString(err.Error())
		return 1
	}
	return 0
}

func commitOrder(ctx context.Context, s *Store) error {
	d, err := s.Begin(ctx)
	if err == nil {
		err = errors.Join(s.Hook("begun"), os.WriteFile(d.Path(State), []byte("state"), 0o600), os.WriteFile(d.Path(Memory), []byte("memory"), 0o600), s.Hook("filled"))
	}
	if err != nil {
		return err
	}
	m := &Manifest{Kind: microvm.SnapshotFull}
	err = errors.Join(d.Seal(ctx, "vm/new", m), s.Hook("sealed"), d.Place(), s.Hook("placed"), d.Bind("vm/new"), s.Hook("bound"))
	return errors.Join(err, d.Close())
}

// importOrder imports the file at path, and keeps what is shared beside it.
func importOrder(ctx context.Context, s *Store, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = s.Import(ctx, f, ImportOptions{Name: "vm/new", Unsigned: true, Keep: shelf(filepath.Dir(path)).keep})
	return err
}

// dies has a process do something that it is killed in.
func dies(t *testing.T, s *Store, verb, point, uid string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), orderVariable+"="+strings.Join([]string{verb, point, s.dir, uid}, " "))
	out, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("%s at %s was not killed: %v: %s", verb, point, err, out)
	}
}

// sound says that all that is listed is whole, and that after a sweep there is nothing else.
func sound(t *testing.T, s *Store, names ...string) {
	t.Helper()
	if _, err := s.Sweep(); err != nil {
		t.Error(err)
	}
	if found := listed(t, s); !slices.Equal(found, names) {
		t.Errorf("there are %q, want %q", found, names)
	}
	all, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range all {
		if err := s.Verify(t.Context(), one.UID); err != nil {
			t.Error(err)
		}
	}
	if dirs, making := entries(t, s, "all"), entries(t, s, "new"); len(dirs) != len(names) || len(making) > 0 {
		t.Errorf("left: %q, %q", dirs, making)
	}
}

// points returns at which points a verb's hook is called.
func points(t *testing.T, s *Store, do func() error) (met []string) {
	t.Helper()
	s.Hook = func(at string) error {
		met = append(met, at)
		return nil
	}
	err := do()
	s.Hook = nil
	if err != nil || len(met) < 2 {
		t.Fatalf("points %q, %v", met, err)
	}
	return met
}

// TestKilledInCommit: the snapshot is there, whole, once it has its name, and before there is nothing.
func TestKilledInCommit(t *testing.T) {
	for _, point := range []string{"begun", "filled", "sealed", "placed", "bound"} {
		s := newStore(t)
		dies(t, s, "commit", point, "")
		if point == "bound" {
			sound(t, s, "vm/new")
		} else {
			if found := listed(t, s); len(found) > 0 {
				t.Errorf("%s: %q", point, found)
			}
			sound(t, s)
		}
	}
}

// TestKilledInFlatten: it is what it was, in either form, and the next attempt succeeds.
func TestKilledInFlatten(t *testing.T) {
	prepare := func() (*Store, Manifest, Manifest) {
		s := newStore(t)
		below := snapshot(t, s, "vm/below", "", map[int64]byte{1: 'a', 2: 'b'})
		return s, below, snapshot(t, s, "vm/over", below.UID, map[int64]byte{2: 'c'})
	}
	s, _, over := prepare()
	for _, point := range points(t, s, func() error { return s.Flatten(t.Context(), over.UID) }) {
		s, below, over := prepare()
		dies(t, s, "flatten", point, over.UID)
		sound(t, s, "vm/below", "vm/over")
		holds(t, s, over.UID, map[int64]byte{1: 'a', 2: 'c'})
		if err := s.Flatten(t.Context(), over.UID); err != nil {
			t.Errorf("%s: %v", point, err)
		}
		if files := entries(t, s, "all/"+over.UID); slices.Contains(files, Memory) {
			t.Errorf("%s: left %q", point, files)
		}
		if err := s.Delete(t.Context(), below.UID, nobody); err != nil {
			t.Errorf("%s: %v", point, err)
		}
		sound(t, s, "vm/over")
		holds(t, s, over.UID, map[int64]byte{1: 'a', 2: 'c'})
	}
}

// TestKilledInDelete: it is there, whole, or gone.
func TestKilledInDelete(t *testing.T) {
	s := newStore(t)
	m := snapshot(t, s, "vm/warm", "", nil)
	met := points(t, s, func() error { return s.Delete(t.Context(), m.UID, nobody) })
	for _, point := range met {
		s := newStore(t)
		m := snapshot(t, s, "vm/warm", "", nil)
		dies(t, s, "delete", point, m.UID)
		if point == met[0] {
			sound(t, s, "vm/warm")
		} else {
			sound(t, s)
			snapshot(t, s, "vm/warm", "", nil)
		}
	}
}

// TestKilledInImport: it is there, whole, once it has its name.
func TestKilledInImport(t *testing.T) {
	from, path := newStore(t), filepath.Join(t.TempDir(), "export")
	if err := os.WriteFile(path, export(t, from, exportable(t, from).UID, nil), 0o600); err != nil {
		t.Fatal(err)
	}
	s := newStore(t)
	met := points(t, s, func() error { return importOrder(t.Context(), s, path) })
	for _, point := range met {
		s := newStore(t)
		dies(t, s, "import", point, path)
		if point == met[len(met)-1] {
			sound(t, s, "vm/new")
		} else {
			sound(t, s)
		}
	}
}

// TestProcessesWantOneName: one has it, and the others leave nothing.
func TestProcessesWantOneName(t *testing.T) {
	s := newStore(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var running []*exec.Cmd
	var said []*strings.Builder
	for range 4 {
		cmd, out := exec.CommandContext(t.Context(), self), &strings.Builder{}
		cmd.Env = append(os.Environ(), orderVariable+"=commit none "+s.dir+" ")
		cmd.Stderr = out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		running, said = append(running, cmd), append(said, out)
	}
	made := 0
	for i, cmd := range running {
		if err := cmd.Wait(); err == nil {
			made++
		} else if !strings.Contains(said[i].String(), microvm.ErrExists.Error()) {
			t.Errorf("%v: %s", err, said[i])
		}
	}
	if made != 1 {
		t.Errorf("%d have the name", made)
	}
	sound(t, s, "vm/new")
}
