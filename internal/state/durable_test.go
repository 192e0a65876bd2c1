//go:build linux

package state

import (
	"os"
	"path/filepath"
	"testing"
)

// TestStage: what is staged is no machine before it is promoted, unless the host was booted since, and goes with a machine that is taken back.
func TestStage(t *testing.T) {
	d := newDir(t)
	lock := begunMachine(t, d)
	uid := lock.UID()
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
	var durable Record // as it is found after a boot, when nothing is left that is volatile
	if err := read(d.recordFile(uid), &durable); err != nil || durable.Phase != PhaseCreated {
		t.Errorf("staged, and the host was booted: %q, %v", durable.Phase, err)
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
	record.Phase = PhaseDestroying
	if err := lock.WriteRecord(record); err != nil {
		t.Fatal(err)
	}
	if read, err := d.ReadRecord(uid); err != nil || read.Phase != PhaseDestroying {
		t.Errorf("staged, and destroyed: %q, %v", read.Phase, err)
	}
	if err := lock.Remove(); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(filepath.Join(d.Root(), "machines", "*")); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}
