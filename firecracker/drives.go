//go:build linux

package firecracker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/loan"
	"github.com/tangle-network/microvm-runtime/internal/state"
	"github.com/tangle-network/microvm-runtime/internal/unix"
)

// importDrives imports the drives that are shared, and looks at those that will be lent. An entry is empty for one of these.
func (d *driver) importDrives(ctx context.Context, drives []microvm.Drive) ([]string, error) {
	var stored []string
	lent := lentThings{}
	defer lent.Close()
	for i, drive := range drives {
		if !drive.ReadOnly {
			if err := d.lookAt(drive, i, lent); err != nil {
				return nil, err
			}
			stored = append(stored, "")
			continue
		}
		file, err := d.store.Import(ctx, drive.Path)
		if err != nil {
			return nil, fmt.Errorf("Spec.Drives: drive %d: %w", i, err)
		}
		stored = append(stored, file.Path)
	}
	return stored, nil
}

// lookAt refuses what can't be lent, and adds it to what the same machine has.
func (d *driver) lookAt(drive microvm.Drive, i int, lent lentThings) error {
	thing, err := loan.Open(drive.Path)
	if err != nil {
		return fmt.Errorf("Spec.Drives: drive %d: %w", i, err)
	}
	for _, other := range lent {
		if thing.Same(other) {
			err = errors.Join(err, fmt.Errorf("%w: Spec.Drives: drive %d: %s and %s are the same", microvm.ErrInvalid, i, other.Path, drive.Path))
		}
	}
	lent[drivePath(i)] = thing
	if err == nil && !d.options.Bare {
		err = thing.InUse()
	}
	return err
}

// lendDrives lends the machine what it writes to. Before it is given away a file is linked and unlinked where machines' own disks are: what can't be there can't be in a jail.
func (d *driver) lendDrives(r *state.Record) error {
	for i, drive := range r.Spec.Drives {
		if drive.ReadOnly {
			continue
		}
		thing, err := loan.Open(drive.Path)
		if err != nil {
			return fmt.Errorf("drive %d: %w", i, err)
		}
		err = d.tryLink(r, thing)
		if err == nil {
			err = d.lend(r, thing)
		}
		if err := errors.Join(err, thing.Close()); err != nil {
			return fmt.Errorf("drive %d: %w", i, err)
		}
	}
	return nil
}

func (d *driver) tryLink(r *state.Record, thing *loan.Thing) error {
	if !r.Jailed || thing.Block {
		return nil
	}
	path := filepath.Join(d.state.Machine(r.UID), "link")
	err := unix.LinkFile(thing.File(), path)
	if errors.Is(err, syscall.EXDEV) {
		return fmt.Errorf("%w: %s is not on the file system of Options.StateDir %s, so no jail can have it (move it there, or use a block device)", microvm.ErrInvalid, thing.Path, d.options.StateDir)
	}
	if err != nil {
		return err
	}
	return os.Remove(path)
}

// lend makes a thing the machine's, or says which machine has it.
func (d *driver) lend(r *state.Record, thing *loan.Thing) error {
	to := loan.Borrower{ID: r.UID}
	if r.Jailed {
		to.UID, to.GID = d.jailUser(r)
	}
	return d.nameHolder(d.loans.Take(to, thing))
}

// nameHolder adds the name of the machine that has what another wants.
func (d *driver) nameHolder(err error) error {
	if held := (*loan.HeldError)(nil); errors.As(err, &held) {
		name, _ := d.state.NameOf(held.Holder)
		return fmt.Errorf("%w (machine %q)", err, name)
	}
	return err
}

// returnDrives gives back what the machine was lent. Its VMM must be gone.
func (d *driver) returnDrives(uid string) error {
	remarks, err := d.loans.Return(uid)
	for _, remark := range remarks {
		d.log.Warn("a drive is not given back", "uid", uid, "cause", remark)
	}
	return err
}

// lentThings are what a machine was lent, open, by their names in its place.
type lentThings map[string]*loan.Thing

// openLent opens the machine's writable drives, which must be what they were at Create, and makes sure that its user can write to them.
func (d *driver) openLent(r *state.Record) (lentThings, error) {
	lent := lentThings{}
	for i, drive := range r.Spec.Drives {
		if drive.ReadOnly {
			continue
		}
		thing, err := loan.Open(drive.Path)
		if err == nil {
			lent[drivePath(i)] = thing
			err = d.nameHolder(d.loans.Holds(r.UID, thing))
		}
		if err == nil {
			err = d.lend(r, thing)
		}
		if err == nil && r.Jailed {
			err = thing.InUse()
		}
		if err != nil {
			lent.Close()
			return nil, fmt.Errorf("drive %d: %w", i, err)
		}
	}
	return lent, nil
}

func (l lentThings) files() map[string]*os.File {
	files := make(map[string]*os.File, len(l))
	for name, thing := range l {
		files[name] = thing.File()
	}
	return files
}

// Close closes the descriptors. What is lent stays so.
func (l lentThings) Close() {
	for _, thing := range l {
		thing.Close()
	}
}

// lentBytes returns the size of the largest file that the machine was lent.
func lentBytes(r *state.Record) int64 {
	var most int64
	for _, drive := range r.Spec.Drives {
		if info, err := os.Lstat(drive.Path); err == nil && !drive.ReadOnly && info.Mode().IsRegular() {
			most = max(most, info.Size())
		}
	}
	return most
}
