//go:build linux

package state

import (
	"os"
	"path/filepath"
	"testing"
)

// TestStage: what is staged is nobody's word before it is promoted, and goes with a machine that is taken back.
func TestStage(t *testing.T) {
	d := newDir(t)
	uid := NewUID()
	lock, err := d.Create(t.Context(), uid)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Unlock()
	record := Record{UID: uid, Phase: PhaseCreating}
	if err := lock.Draft(record); err != nil {
		t.Fatal(err)
	}
	if err := lock.Bind("one"); err != nil {
		t.Fatal(err)
	}
	record.Phase = PhaseCreated
	if err := lock.Stage(record); err != nil {
		t.Fatal(err)
	}
	if read, err := d.ReadRecord(uid); err != nil || read.Phase != PhaseCreating {
		t.Errorf("staged: %q, %v", read.Phase, err)
	}
	if err := lock.Promote(); err != nil {
		t.Fatal(err)
	}
	if read, err := d.ReadRecord(uid); err != nil || read.Phase != PhaseCreated {
		t.Errorf("promoted: %q, %v", read.Phase, err)
	}
	if err := lock.Promote(); !os.IsNotExist(err) {
		t.Errorf("promoted again: %v", err)
	}
	if err := lock.Stage(record); err != nil {
		t.Fatal(err)
	}
	if err := lock.Remove(); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(filepath.Join(d.Root(), "machines", "*")); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}
