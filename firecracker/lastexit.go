//go:build linux

package firecracker

import (
	"errors"
	"fmt"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/state"
)

// errStarted says that a machine was started while its records were read without its lock.
var errStarted = errors.New("it was started meanwhile")

// lastExit returns how the last run ended; nil when there was none, or while one goes on.
//
//	there is a record of its end            what that says; unknown where it is damaged: it is not flushed, and a power cut may tear it
//	it began before the host's present boot host-reboot
//	it began since                          unknown, or, while a VMM runs all the same, microvm.ErrBusy
func (d *driver) lastExit(uid string, run *state.Run) (*microvm.Exit, error) {
	if run != nil {
		return nil, nil
	}
	exit, err := d.state.ReadExit(uid)
	begun, ok := d.state.Begun(uid)
	if errors.Is(err, state.ErrDamaged) {
		return &microvm.Exit{Reason: microvm.ReasonUnknown, Code: -1, Time: begun, Evidence: []string{err.Error()}}, nil
	}
	if exit != nil || err != nil {
		return exit, err
	}
	if !ok {
		return nil, nil
	}
	now, err := d.state.BegunNow(uid)
	if err != nil {
		return nil, err
	}
	if now {
		return d.lostExit(uid, begun)
	}
	return &microvm.Exit{
		Reason: microvm.ReasonReboot, Code: -1, Time: begun,
		Evidence: []string{fmt.Sprintf("it was started at %s, before the host's present boot", begun.Format(time.RFC3339))},
	}, nil
}

// lostExit is the end of a run of which the socket directory knows nothing, though the host was not booted since: it was emptied, or is not the one that it was.
func (d *driver) lostExit(uid string, begun time.Time) (*microvm.Exit, error) {
	if run, err := d.state.ReadRun(uid); err != nil || run != nil && run.Committed {
		return nil, errors.Join(err, errStarted)
	}
	pids, err := d.strays(uid)
	if err != nil {
		return nil, err
	}
	if len(pids) > 0 {
		return nil, fmt.Errorf("%w: process %d runs it, and %s has no record of that: it was emptied, or is mounted elsewhere (Destroy ends the machine)", microvm.ErrBusy, pids[0], d.state.Volatile(uid))
	}
	return &microvm.Exit{
		Reason: microvm.ReasonUnknown, Code: -1, Time: begun,
		Evidence: []string{
			fmt.Sprintf("it was started at %s, in the host's present boot, and no process of it runs", begun.Format(time.RFC3339)),
			fmt.Sprintf("%s has no record of that run", d.state.Volatile(uid)),
		},
	}, nil
}

// endLost ends the VMM of a run of which the socket directory knows nothing.
func (d *driver) endLost(uid string) error {
	if now, err := d.state.BegunNow(uid); err != nil || !now {
		return err
	}
	if exit, err := d.state.ReadExit(uid); exit != nil && err == nil {
		return nil
	}
	return d.endStrays(uid)
}
