//go:build linux

package state

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/tangle-network/microvm-runtime/internal/disk"
)

func (d *Dir) recordFile(uid string) string { return filepath.Join(d.Machine(uid), "record.json") }

// stagedFile is there while the durable record says more than is true yet. It dies with the host's present boot.
func (d *Dir) stagedFile(uid string) string { return filepath.Join(d.Volatile(uid), "staged") }

// ReadRecord returns the machine's durable record: fs.ErrNotExist, ErrDamaged or microvm.ErrIncompatible when it can't. One that is staged is of a machine that is being created.
func (d *Dir) ReadRecord(uid string) (Record, error) {
	var r Record
	err := read(d.recordFile(uid), &r)
	if errors.Is(err, ErrDamaged) && d.cut(uid) {
		return r, fmt.Errorf("%s: %w: it is empty", d.recordFile(uid), os.ErrNotExist)
	}
	if err == nil && r.Phase == PhaseCreated && d.staged(uid) { // in this order: it is promoted by the latter
		r.Phase = PhaseCreating
	}
	return r, err
}

func (d *Dir) staged(uid string) bool {
	_, err := os.Lstat(d.stagedFile(uid))
	return err == nil
}

// cut says whether a machine's first record was cut by a power loss: what replaces one is flushed before. A machine that has run may have more to lose.
func (d *Dir) cut(uid string) bool {
	info, err := os.Lstat(d.recordFile(uid))
	_, begun := d.Begun(uid)
	return err == nil && info.Mode().IsRegular() && info.Size() == 0 && !begun
}

// Draft writes the record of a machine that Create has just made, as one to be taken back: nothing is flushed.
func (l *Lock) Draft(r Record) error { return write(l.dir.recordFile(l.uid), r, false) }

// WriteRecord replaces the durable record; when it returns it survives power loss.
func (l *Lock) WriteRecord(r Record) error {
	if err := write(l.dir.recordFile(l.uid), r, true); err != nil {
		return err
	}
	return l.flushParents()
}

// Stage writes, beside what else makes a machine that Create has begun, the record that it is to have, which survives power loss when Stage returns: what is left for [Lock.Promote] to do costs no
// flush. Until then the machine is being created, unless the host goes down: then it was.
func (l *Lock) Stage(r Record) error {
	if err := os.WriteFile(l.dir.stagedFile(l.uid), nil, 0o600); err != nil {
		return err
	}
	path := l.dir.recordFile(l.uid)
	if err := write(path, r, false); err != nil {
		return err
	}
	if err := disk.Sync(path); err != nil { // behind the rename, all at once: one that is cut is of no machine yet
		return err
	}
	return l.flushParents()
}

// Promote makes the staged record true.
func (l *Lock) Promote() error { return os.Remove(l.dir.stagedFile(l.uid)) }

// flushParents makes survive what a new machine is found by: its directory, and its name.
func (l *Lock) flushParents() error {
	if !l.fresh {
		return nil
	}
	err := errors.Join(disk.SyncDir(filepath.Dir(l.dir.Machine(l.uid))), disk.SyncDir(l.dir.names()))
	l.fresh = err != nil
	return err
}

// RemoveRecord removes the durable record of a machine that is being destroyed.
func (l *Lock) RemoveRecord() error { return ignoreMissing(os.Remove(l.dir.recordFile(l.uid))) }
