//go:build linux

package firecracker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/state"
	"github.com/tangle-network/microvm-runtime/internal/vmm"
)

// settle is due once the VMM of a run has ended: it says how, removes what the run had, and tells. The console stays until the next start.
// The order makes it safe to be interrupted: whoever comes next finds the run again and settles it.
func (d *driver) settle(lock *state.Lock, record *state.Record, run *state.Run, name string) (*microvm.Exit, error) {
	uid := record.UID
	status := d.statusOf(uid, run)
	exit := d.conclude(record, run, status)
	d.keepLog(record)
	<-d.drained(uid)
	exit.Evidence = append(exit.Evidence, d.syncDisks(record)...)
	errs := []error{d.endPager(uid), d.endLeaf(uid), d.place(record).remove(), lock.WriteExit(exit)}
	if err := errors.Join(errs...); err != nil {
		return &exit, fmt.Errorf("settle: %w", err)
	}
	if err := lock.RemoveRun(); err != nil {
		return &exit, err
	}
	d.forget(uid)
	if run.Snapshot != "" {
		d.dropEphemeral(run.Snapshot)
	}
	d.tell(record, name, microvm.EventStopped, &exit)
	return &exit, nil
}

// statusOf returns how the VMM ended, as far as the kernel tells us.
func (d *driver) statusOf(uid string, run *state.Run) vmm.Status {
	w := d.watchOf(uid, run)
	if w == nil {
		return vmm.Status{}
	}
	status, err := w.process.Wait(context.Background()) // it has ended: this does not wait
	if err != nil {
		return vmm.Status{}
	}
	return status
}

// forget ends the watch of a run that is settled.
func (d *driver) forget(uid string) {
	d.lines.forget(uid)
	d.mu.Lock()
	defer d.mu.Unlock()
	if w := d.watched[uid]; w != nil {
		d.leave(uid, w)
		w.process.Close()
	}
}

// starterPatience is how long the process that started a VMM, and so is told how it ended, may take to settle its run.
const starterPatience = time.Second

// errStarterFirst is answered where the process that started a VMM is to settle its run.
var errStarterFirst = errors.New("who started it settles its run")

// yieldToStarter waits, when a VMM has ended, for the process that started it to settle its run, if that is another and lives.
func (d *driver) yieldToStarter(ctx context.Context, uid string) {
	for begin := time.Now(); d.startersToSettle(uid) && time.Since(begin) < starterPatience; {
		select {
		case <-time.After(2 * time.Millisecond):
		case <-ctx.Done():
			return
		}
	}
}

// startersToSettle says whether a VMM has ended, this process does not know how, and the process that started it lives and will.
func (d *driver) startersToSettle(uid string) bool {
	run, err := d.state.ReadRun(uid)
	if err != nil || run == nil || run.Process == nil || run.Starter == nil || run.Starter.PID == os.Getpid() {
		return false
	}
	return errors.Is(d.alive(uid, run), vmm.ErrGone) && !d.statusOf(uid, run).Known && vmm.Runs(*run.Starter)
}

// conclude says why a run ended. The guest's console is no evidence: a guest can write there what it likes.
//
//	our recorded intent, and the VMM's end fits it      stopped, forced
//	the leaf's memory.events counted an OOM kill        oom
//	the VMM ended with status 0, or its log says so     guest
//	it was killed while its log says that it stops      guest
//	the VMM ended otherwise                             crashed
//	nothing is known                                    unknown
func (d *driver) conclude(record *state.Record, run *state.Run, status vmm.Status) microvm.Exit {
	exit := microvm.Exit{Reason: microvm.ReasonUnknown, Code: -1, Time: time.Now().Round(0)}
	note := func(format string, args ...any) { exit.Evidence = append(exit.Evidence, fmt.Sprintf(format, args...)) }
	if status.Known {
		exit.Code, exit.Signal = status.Code, status.Signal
		if status.Signal != 0 {
			exit.Code = -1
			note("the VMM ended by signal %d (%v)", status.Signal, syscall.Signal(status.Signal))
		} else {
			note("the VMM ended with status %d", status.Code)
		}
	}
	unserved := d.pagerReason(record.UID, run)
	if unserved != "" {
		note("its memory could not be served any more: %s", unserved)
	}
	log, kills := d.vmmLog(record), d.oomKills(record.UID)
	clean := status.Known && status.Signal == 0 && status.Code == 0
	switch {
	case strings.Contains(log, "exit_code=0"):
		note("the VMM's log says that it ended with status 0")
		clean = clean || !status.Known
	case stopsIn(log) && (!status.Known || status.Signal == int(syscall.SIGKILL)):
		note("the VMM's log says that it was stopping when it was killed")
		clean = kills == 0
	}
	if kills > 0 {
		note("the kernel killed %d of the leaf's processes for memory", kills)
	}
	switch {
	case run.Intent != nil && (run.Intent.Reason == microvm.ReasonForced || clean):
		exit.Reason = run.Intent.Reason
		note("%s was asked for at %s", run.Intent.Reason, run.Intent.Time.Format(time.RFC3339Nano))
	case kills > 0:
		exit.Reason = microvm.ReasonOOM
	case clean:
		exit.Reason = microvm.ReasonGuest
	case status.Known || unserved != "":
		exit.Reason = microvm.ReasonCrashed
	}
	return exit
}

// endLeaf removes the machine's cgroup leaf, and what may be left in it.
func (d *driver) endLeaf(uid string) error {
	if d.slice == nil {
		return nil
	}
	leaf, err := d.slice.Leaf(uid)
	if err != nil || leaf == nil {
		return err
	}
	return leaf.End()
}

// oomKills returns how many processes of the machine's leaf the kernel killed for memory.
func (d *driver) oomKills(uid string) int {
	if d.slice == nil {
		return 0
	}
	leaf, err := d.slice.Leaf(uid)
	if err != nil || leaf == nil {
		return 0
	}
	defer leaf.Close()
	return leaf.OOMKills()
}
