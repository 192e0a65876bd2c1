//go:build linux

package state

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/flock"
)

// layoutFile is where the layout is written down.
const layoutFile = "layout.json"

// Layout is which options belong to a state directory. A process with others would take a machine that runs for one that does not, and start it once more.
//
// How many users there are does not belong to it: a lease of a number above them stays. Nor does whether new machines are bare: each record says so.
type Layout struct {
	SocketDir string `json:"socket_dir"`
	JailDir   string `json:"jail_dir"`
	Slice     string `json:"slice"`
	FirstUID  int    `json:"first_uid"`
}

// fits says whether options are those of a layout that was written down: microvm.ErrInvalid, with both values, when they are not.
func (l Layout) fits(options Layout, path string) error {
	for _, field := range []struct {
		name, variable string
		fixed, given   any
		same           bool
	}{
		{"SocketDir", "MICROVM_SOCKET_DIR", l.SocketDir, options.SocketDir, samePlace(l.SocketDir, options.SocketDir)},
		{"JailDir", "MICROVM_JAILER_CHROOT_BASE", l.JailDir, options.JailDir, samePlace(l.JailDir, options.JailDir)},
		{"Slice", "MICROVM_JAILER_CGROUP_PARENT", l.Slice, options.Slice, l.Slice == options.Slice},
		{"FirstUID", "MICROVM_JAILER_UID", l.FirstUID, options.FirstUID, l.FirstUID == options.FirstUID},
	} {
		if !field.same {
			return &microvm.FieldError{Field: "Options." + field.name, Value: field.given, Reason: fmt.Sprintf(
				"must be %v, with which this state directory was first used (%s; set %s so, or destroy all machines before you choose another)", field.fixed, path, field.variable)}
		}
	}
	return nil
}

func (d *Dir) layoutPath() string { return filepath.Join(d.root, layoutFile) }

// readLayout returns the layout that was written down, nil when none was.
func (d *Dir) readLayout() (*Layout, error) {
	var fixed Layout
	err := read(d.layoutPath(), &fixed)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return &fixed, err
}

// misfit returns why the layout is not the one that was written down, and that one; nil and nil where none was.
func (d *Dir) misfit() (fixed *Layout, why, err error) {
	if fixed, err = d.readLayout(); err != nil || fixed == nil {
		return nil, nil, err
	}
	return fixed, fixed.fits(d.layout, d.layoutPath()), nil
}

// checkLayout refuses another layout than that of the machines that are there.
func (d *Dir) checkLayout() error {
	_, why, err := d.misfit()
	if err == nil && why != nil && d.hasMachines() {
		err = why
	}
	return err
}

func (d *Dir) hasMachines() bool {
	uids, err := d.UIDs()
	return err != nil && !errors.Is(err, os.ErrNotExist) || len(uids) > 0
}

// FixLayout writes the layout down. It is due once the options are known to work. While there is no machine it replaces another: who has the directory open with that one can make and change no
// machine any more.
func (d *Dir) FixLayout() error {
	ctx, cancel := context.WithTimeout(context.Background(), claimPatience)
	defer cancel()
	lock, err := flock.Dir(ctx, d.root)
	if err != nil {
		return err
	}
	defer lock.Close()
	fixed, why, err := d.misfit()
	switch {
	case err != nil:
		return err
	case why != nil && d.hasMachines():
		return why
	case fixed == nil || why != nil:
		err = write(d.layoutPath(), d.layout, true)
	}
	if err == nil && why != nil && d.hasMachines() { // made meanwhile, by who knew the other
		err = errors.Join(why, write(d.layoutPath(), fixed, true))
	}
	if err == nil {
		d.fixed, err = os.Lstat(d.layoutPath())
	}
	return err
}

// stillFits says whether the layout is still the one that FixLayout left. A machine that is being made is seen by who replaces it, so one of both finds the other.
func (d *Dir) stillFits() error {
	if d.fixed == nil {
		return nil
	}
	now, err := os.Lstat(d.layoutPath())
	if errors.Is(err, os.ErrNotExist) || err == nil && os.SameFile(now, d.fixed) && now.ModTime().Equal(d.fixed.ModTime()) {
		return nil
	}
	_, why, err := d.misfit()
	return errors.Join(why, err)
}
