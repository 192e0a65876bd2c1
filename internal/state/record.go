//go:build linux

package state

import (
	"errors"
	"os"
	"path/filepath"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/vmm"
)

// Phase is how far the making or unmaking of a machine has come.
type Phase string

// The phases of a machine.
const (
	PhaseCreating   Phase = "creating"
	PhaseCreated    Phase = "created"
	PhaseDestroying Phase = "destroying"
)

// Record is what must survive power loss. It does not hold the name.
type Record struct {
	UID     string       `json:"uid"`
	Phase   Phase        `json:"phase"`
	Created time.Time    `json:"created"`
	Spec    microvm.Spec `json:"spec"` // Resolved.
	// Files are what the machine boots from: paths in the store.
	Files Files `json:"files"`
	// Agent says that the guest agent boots the machine.
	Agent bool `json:"agent"`
	// Jailed says that the VMM runs in a jail, as the user of Slot.
	Jailed bool `json:"jailed"`
	// Slot is the number of the lease; meaningful when Jailed.
	Slot int `json:"slot"`
}

// Files are the shared, read-only files that a machine boots from. Empty where it has none.
type Files struct {
	Kernel string `json:"kernel"`
	Initrd string `json:"initrd,omitempty"`
	Base   string `json:"base,omitempty"`
}

// Run is what dies with the host's present boot: one run of a machine, from Start until its end is settled.
type Run struct {
	BootID  string        `json:"boot_id"`
	State   microvm.State `json:"state"` // Starting is told by an empty Process.
	Started time.Time     `json:"started"`
	Process *vmm.Identity `json:"process,omitempty"`
	// Intent says who asked for the run's end, before it is asked for. Nil while nobody has.
	Intent *Intent `json:"intent,omitempty"`
}

// Intent is a wish that a run ends.
type Intent struct {
	Reason microvm.Reason `json:"reason"`
	Time   time.Time      `json:"time"`
}

// ReadRecord returns the machine's durable record: fs.ErrNotExist, ErrDamaged or microvm.ErrIncompatible when it can't.
func (d *Dir) ReadRecord(uid string) (Record, error) {
	var r Record
	err := read(filepath.Join(d.Machine(uid), "record.json"), &r)
	return r, err
}

// WriteRecord replaces the durable record; when it returns it survives power loss.
func (l *Lock) WriteRecord(r Record) error {
	return write(filepath.Join(l.dir.Machine(l.uid), "record.json"), r, true)
}

// ReadRun returns the present run, nil when there is none under this boot.
func (d *Dir) ReadRun(uid string) (*Run, error) {
	var r Run
	err := read(d.runFile(uid), &r)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if r.BootID != d.bootID {
		return nil, nil
	}
	return &r, nil
}

// WriteRun replaces the volatile record.
func (l *Lock) WriteRun(r Run) error {
	r.BootID = l.dir.bootID
	return write(l.dir.runFile(l.uid), r, false)
}

// RemoveRun says that no run goes on.
func (l *Lock) RemoveRun() error {
	return ignoreMissing(os.Remove(l.dir.runFile(l.uid)))
}

// ReadTimeline returns the steps of the present run's start; none when that is not known.
func (d *Dir) ReadTimeline(uid string) ([]microvm.Mark, error) {
	var t []microvm.Mark
	return t, ignoreMissing(read(d.timelineFile(uid), &t))
}

// WriteTimeline records the steps of a start. They have a file of their own: on some file systems to replace a file costs a flush, and this is
// written while somebody waits for the machine.
func (l *Lock) WriteTimeline(t []microvm.Mark) error {
	return write(l.dir.timelineFile(l.uid), t, false)
}

// RemoveTimeline forgets the steps of the start before.
func (l *Lock) RemoveTimeline() error { return ignoreMissing(os.Remove(l.dir.timelineFile(l.uid))) }

func (d *Dir) timelineFile(uid string) string { return filepath.Join(d.Volatile(uid), "timeline.json") }

func (d *Dir) runFile(uid string) string { return filepath.Join(d.Volatile(uid), "run.json") }

// Begun says whether the machine was ever started, and when last.
func (d *Dir) Begun(uid string) (time.Time, bool) {
	info, err := os.Lstat(filepath.Join(d.Machine(uid), "started"))
	if err != nil {
		return time.Time{}, false
	}
	return info.ModTime(), true
}

// Begin notes that a run begins: it survives this process, and so does that no end of it is known.
func (l *Lock) Begin() error {
	if err := ignoreMissing(os.Remove(l.exitFile())); err != nil {
		return err
	}
	path := filepath.Join(l.dir.Machine(l.uid), "started")
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	now := time.Now()
	return errors.Join(f.Close(), os.Chtimes(path, now, now))
}

// Unbegin takes Begin back for a machine that was never started before.
func (l *Lock) Unbegin() error {
	return ignoreMissing(os.Remove(filepath.Join(l.dir.Machine(l.uid), "started")))
}

// ReadExit returns how the last run ended, nil when that is not known.
func (d *Dir) ReadExit(uid string) (*microvm.Exit, error) {
	var e microvm.Exit
	err := read(filepath.Join(d.Machine(uid), "exit.json"), &e)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &e, nil
}

// WriteExit records how the last run ended.
func (l *Lock) WriteExit(e microvm.Exit) error { return write(l.exitFile(), e, false) }

func (l *Lock) exitFile() string { return filepath.Join(l.dir.Machine(l.uid), "exit.json") }
