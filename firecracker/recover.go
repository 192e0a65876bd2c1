//go:build linux

package firecracker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/network"
	"github.com/tangle-network/microvm-runtime/internal/state"
	"github.com/tangle-network/microvm-runtime/internal/vmm"
)

const (
	// recoverTogether is how many machines are looked at at a time.
	recoverTogether = 16
	// recoverPatience is how long a machine's lock is waited for: who holds it longer works on the machine.
	recoverPatience = 100 * time.Millisecond
)

// Recover looks at every machine, then at what was leased to machines that are gone, and last at the host's side of the network.
func (d *driver) Recover(ctx context.Context, o microvm.RecoverOptions) (microvm.Report, error) {
	ctx, leave, err := d.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	r := &recovery{driver: d, dry: o.DryRun, report: microvm.Report{}}
	if err := r.machines(ctx); err != nil {
		return r.report, err
	}
	for _, part := range []func(context.Context) error{r.leases, r.ports, r.loans, r.snapshots, r.ephemeral, r.host} {
		if err := part(ctx); err != nil {
			return r.report, err
		}
	}
	r.report.Sort()
	return r.report, context.Cause(ctx)
}

// recovery is one call of Recover.
type recovery struct {
	driver *driver
	dry    bool

	mu     sync.Mutex
	report microvm.Report
}

// did reports what was done, or would be.
func (r *recovery) did(kind microvm.ActionKind, uid, what string, err error) {
	name := ""
	if uid != "" {
		name, _ = r.driver.state.NameOf(uid)
	}
	a := microvm.Action{Kind: kind, UID: uid, Name: name, What: what}
	if err != nil {
		a.Kind, a.Error = microvm.ActionLeft, err.Error()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report = append(r.report, a)
}

// do does something unless it is only to be said.
func (r *recovery) do(kind microvm.ActionKind, uid, what string, f func() error) {
	if r.dry {
		r.did(kind, uid, what, nil)
		return
	}
	r.did(kind, uid, what, f())
}

// machines recovers all machines, some at a time.
func (r *recovery) machines(ctx context.Context) error {
	uids, err := r.driver.state.UIDs()
	if err != nil {
		return err
	}
	places := make(chan struct{}, recoverTogether)
	var working sync.WaitGroup
	for _, uid := range uids {
		if ctx.Err() != nil {
			break
		}
		places <- struct{}{}
		working.Go(func() {
			defer func() { <-places }()
			r.machine(ctx, uid)
		})
	}
	working.Wait()
	return context.Cause(ctx)
}

// machine recovers one machine. Whose lock is held is worked on, and is left to who does.
func (r *recovery) machine(ctx context.Context, uid string) {
	waiting, cancel := context.WithTimeout(ctx, recoverPatience)
	lock, err := r.driver.state.Lock(waiting, uid)
	cancel()
	switch {
	case errors.Is(err, microvm.ErrNotFound): // destroyed meanwhile
		return
	case errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil && r.driver.waits(uid): // as it should
		return
	case errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil:
		r.did(microvm.ActionLeft, uid, "machine: another call or process works on it", nil)
		return
	case err != nil:
		r.did(microvm.ActionLeft, uid, "machine", err)
		return
	}
	defer lock.Unlock()
	record, err := r.driver.state.ReadRecord(uid)
	switch {
	case errors.Is(err, os.ErrNotExist):
		r.remains(ctx, lock, &state.Record{UID: uid})
	case err != nil:
		r.did(microvm.ActionLeft, uid, "record", err)
	case record.Phase != state.PhaseCreated:
		r.remains(ctx, lock, &record)
	default:
		r.whole(ctx, lock)
	}
}

// remains removes what an interrupted create or destroy has left of a machine.
func (r *recovery) remains(ctx context.Context, lock *state.Lock, record *state.Record) {
	name, err := r.driver.state.NameOf(record.UID)
	if err != nil {
		r.did(microvm.ActionLeft, record.UID, "name", err)
		return
	}
	kind, what := microvm.ActionUndone, "create"
	if record.Phase == state.PhaseDestroying || record.Phase == "" && name != "" {
		kind, what = microvm.ActionDestroyed, "destroy"
	}
	r.do(kind, record.UID, what, func() error { return r.driver.destroy(ctx, lock, record, name) })
}

// whole recovers a machine that was created: its run, if it has one.
func (r *recovery) whole(ctx context.Context, lock *state.Lock) {
	uid := lock.UID()
	run, err := r.driver.state.ReadRun(uid)
	if err != nil {
		r.did(microvm.ActionLeft, uid, "run", err)
		return
	}
	if run == nil {
		return
	}
	if run.Claiming {
		r.unclaim(ctx, lock)
		return
	}
	if r.dry {
		r.foresee(uid, run)
		return
	}
	m, err := r.driver.load(lock, true)
	switch {
	case errors.Is(err, errStarterFirst):
		r.did(microvm.ActionLeft, uid, "run: who started it settles it", nil)
	case err != nil:
		r.did(microvm.ActionLeft, uid, "run", err)
	case m.run == nil && !run.Committed:
		r.did(microvm.ActionUndone, uid, "start", nil)
	case m.run == nil:
		r.did(microvm.ActionEnded, uid, "run", nil)
	default:
		r.did(microvm.ActionAdopted, uid, "run", r.adopt(ctx, m))
	}
}

// unclaim takes back a machine whose hand-over was interrupted.
func (r *recovery) unclaim(ctx context.Context, lock *state.Lock) {
	uid := lock.UID()
	record, err := r.driver.state.ReadRecord(uid)
	if err != nil {
		r.did(microvm.ActionLeft, uid, "record", err)
		return
	}
	name, err := r.driver.state.NameOf(uid)
	if err != nil {
		r.did(microvm.ActionLeft, uid, "name", err)
		return
	}
	r.do(microvm.ActionUndone, uid, "claim", func() error { return r.driver.destroy(ctx, lock, &record, name) })
}

// foresee says what whole would do.
func (r *recovery) foresee(uid string, run *state.Run) {
	switch {
	case !run.Committed:
		r.did(microvm.ActionUndone, uid, "start", nil)
	case r.driver.alive(uid, run) == nil:
		r.did(microvm.ActionAdopted, uid, "run", nil)
	default:
		r.did(microvm.ActionEnded, uid, "run", nil)
	}
}

// adopt watches a machine that runs, and makes its network what its record says.
func (r *recovery) adopt(ctx context.Context, m *machine) error {
	if _, err := r.driver.processOf(m.record.UID, m.run); err != nil {
		return err
	}
	if m.run.Pager {
		if err := r.driver.adoptPager(ctx, &m.record, m.run); err != nil {
			return err
		}
	}
	if !hasNetwork(&m.record.Spec) {
		return nil
	}
	return r.driver.renewNetwork(ctx, &m.record)
}

// leases gives back the slots of machines that are gone.
func (r *recovery) leases(ctx context.Context) error {
	leases, err := r.driver.slots.Leases()
	if err != nil {
		return err
	}
	for number, owner := range leases {
		if r.driver.state.Exists(owner) {
			continue
		}
		r.do(microvm.ActionReturned, owner, fmt.Sprint("slot ", number), func() error {
			if err := r.driver.returnNetwork(ctx, owner); err != nil {
				return err
			}
			return r.driver.slots.Release(ctx, owner)
		})
	}
	return nil
}

// ports gives back the host's ports of machines that are gone, and those that an interrupted update has left beside what the record says.
func (r *recovery) ports(ctx context.Context) error {
	owners, err := r.driver.ports.Owners()
	if err != nil {
		return err
	}
	for owner, ports := range owners {
		if !r.driver.state.Exists(owner) {
			r.do(microvm.ActionReturned, owner, "ports", func() error { return r.driver.ports.Return(ctx, owner) })
		} else if r.excess(owner, ports) {
			r.excessPorts(ctx, owner, ports)
		}
	}
	return nil
}

// excess says whether a machine has ports that its record does not.
func (r *recovery) excess(uid string, ports []microvm.Port) bool {
	record, err := r.driver.state.ReadRecord(uid)
	if err != nil || record.Phase != state.PhaseCreated { // it is being made, or destroyed, or has been told
		return false
	}
	return slices.ContainsFunc(ports, func(p microvm.Port) bool {
		return !hasNetwork(&record.Spec) || !slices.ContainsFunc(record.Spec.Network.Publish, func(own microvm.Port) bool { return own.Protocol == p.Protocol && own.Host == p.Host })
	})
}

// excessPorts gives back what a machine has beside what its record says. Whose lock is held may be updated: it is left to who does.
func (r *recovery) excessPorts(ctx context.Context, uid string, ports []microvm.Port) {
	waiting, cancel := context.WithTimeout(ctx, recoverPatience)
	lock, err := r.driver.state.Lock(waiting, uid)
	cancel()
	if err != nil {
		return
	}
	defer lock.Unlock()
	if r.excess(uid, ports) {
		r.do(microvm.ActionReturned, uid, "ports", func() error { return r.driver.portsAsRecorded(ctx, lock) })
	}
}

// loans gives back the drives of machines that are gone.
func (r *recovery) loans(context.Context) error {
	if r.dry {
		return nil
	}
	remarks, err := r.driver.loans.Sweep()
	for _, remark := range remarks {
		r.did(microvm.ActionReturned, "", "drive: "+remark, nil)
	}
	return err
}

// snapshots removes what interrupted snapshots, and deletions of them, have left.
func (r *recovery) snapshots(context.Context) error {
	if r.dry {
		return nil
	}
	removed, err := r.driver.snaps.Sweep()
	for _, uid := range removed {
		r.did(microvm.ActionUndone, "", "snapshot "+uid, nil)
	}
	return err
}

// ephemeral deletes snapshots that were to go with machines, when none runs from them, and who made them can't make one any more.
func (r *recovery) ephemeral(ctx context.Context) error {
	all, err := r.driver.snaps.List()
	if err != nil {
		return err
	}
	for _, one := range all {
		if one.Problem != nil || !one.Ephemeral || one.Maker != nil && vmm.Runs(*one.Maker) {
			continue
		}
		if user, err := r.driver.runsFrom(one.UID); err != nil || user != "" {
			continue
		}
		r.do(microvm.ActionUndone, "", "snapshot "+one.Name, func() error { return r.driver.deleteUnused(ctx, one.UID) })
	}
	return nil
}

// host sets again what the host has of the network, where there is one since the host was booted.
func (r *recovery) host(ctx context.Context) error {
	if !network.Made(r.driver.networkPath()) {
		return nil
	}
	present, err := r.driver.hostPresent(ctx)
	if err != nil || present {
		return err
	}
	r.do(microvm.ActionRestored, "", "host table", func() error { return r.driver.restoreHost(ctx) })
	return nil
}
