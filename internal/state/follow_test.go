//go:build linux

package state

import (
	"errors"
	"os"
	"slices"
	"testing"

	microvm "github.com/tangle-network/microvm-runtime"
)

// TestFollower tells of each machine that it follows when its run's record is replaced, and of nothing else.
func TestFollower(t *testing.T) {
	d := newDir(t)
	never, err := d.Create(t.Context(), NewUID())
	if err != nil {
		t.Fatal(err)
	}
	defer never.Unlock()
	locks := []*Lock{newMachine(t, d, "zero"), newMachine(t, d, "one"), newMachine(t, d, "two")}
	f, err := d.Follow()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Add(never.UID()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a machine that was never started: %v", err)
	}
	write := func(lock *Lock) {
		t.Helper()
		if err := errors.Join(lock.Commit(nil), lock.WriteRun(Run{State: microvm.StateRunning})); err != nil {
			t.Fatal(err)
		}
	}
	next := func(want *Lock) {
		t.Helper()
		if got, err := f.Next(); err != nil || !slices.Equal(got, []string{want.UID()}) {
			t.Errorf("it tells of %v, %v, want %s", got, err, want.UID())
		}
	}
	for _, lock := range locks[:2] {
		if err := errors.Join(f.Add(lock.UID()), f.Add(lock.UID())); err != nil {
			t.Fatal(err)
		}
	}
	write(locks[2]) // is not followed
	write(locks[1])
	next(locks[1])
	f.Remove(locks[1].UID())
	write(locks[1])
	write(locks[0])
	next(locks[0])

	if err := errors.Join(os.RemoveAll(d.Volatile(locks[0].UID())), os.Mkdir(d.Volatile(locks[0].UID()), 0o700), f.Add(locks[0].UID())); err != nil {
		t.Fatal(err)
	}
	write(locks[0])
	next(locks[0])
	f.Remove(locks[1].UID()) // which it does not follow

	ended := make(chan error)
	go func() {
		_, err := f.Next()
		ended <- err
	}()
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; err == nil {
		t.Error("it tells after its end")
	}
}
