//go:build linux

package firecracker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"reflect"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/disk"
	"github.com/tangle-network/microvm-runtime/internal/snapstore"
	"github.com/tangle-network/microvm-runtime/internal/state"
	"github.com/tangle-network/microvm-runtime/internal/step"
)

// Restore makes a machine of a snapshot. Until it is its own it counts as one that is being created: who finds it without its maker takes it back.
func (d *driver) Restore(ctx context.Context, snapshot, name string, o microvm.RestoreOptions) (uid string, evidence microvm.Evidence, err error) {
	ctx, leave, err := d.enter(ctx)
	if err != nil {
		return "", nil, err
	}
	defer leave()
	drop, err := d.store.Hold(ctx) // what the machine boots from must not be collected before its record names it
	if err != nil {
		return "", nil, err
	}
	defer drop()
	hold, manifest, err := d.snaps.Hold(ctx, snapshot)
	if err != nil {
		return "", nil, err
	}
	defer hold.Release()
	if d.state.Taken(name) { // Bind decides; this spares the work.
		return "", nil, fmt.Errorf("name %q: %w", name, microvm.ErrExists)
	}
	r := &restoration{driver: d, manifest: &manifest, name: name, options: o}
	over := d.stock.restored(r)
	defer func() { over(err == nil) }()
	if err := r.check(ctx); err != nil {
		return "", nil, err
	}
	release, err := d.admit(ctx, r.record)
	if err != nil {
		return "", nil, err
	}
	defer release()
	if err := r.run(ctx, release); err != nil {
		return "", r.evidence, err
	}
	return r.record.UID, r.evidence, nil
}

// restoration is one restore of one machine.
type restoration struct {
	driver   *driver
	manifest *snapstore.Manifest
	name     string
	options  microvm.RestoreOptions

	program  program // What it is restored by.
	memory   string  // Path of the snapshot's whole memory.
	record   *state.Record
	lock     *state.Lock
	steps    *step.Sequence
	boot     *boot
	evidence microvm.Evidence
}

// check finds out whether it can be done, before anything is touched.
func (r *restoration) check(ctx context.Context) (err error) {
	d := r.driver
	if err := keeps(r.manifest.Agent, "RestoreOptions", r.options.Env, r.options.Secrets); err != nil {
		return err
	}
	if r.program, err = d.fits(ctx, r.manifest); err != nil {
		return err
	}
	if r.record, err = r.makeRecord(); err != nil {
		return err
	}
	if err := r.program.supports(planOf(r.record)); err != nil {
		return err
	}
	if err := d.snaps.Check(ctx, r.manifest); err != nil {
		return err
	}
	r.memory, err = d.snaps.Memory(ctx, r.manifest)
	return err
}

// makeRecord returns the record of the machine: the snapshot's, with what the options say otherwise.
func (r *restoration) makeRecord() (*state.Record, error) {
	m := r.manifest
	spec := m.Spec.Copy()
	if r.options.Labels != nil {
		spec.Labels = r.options.Labels
	}
	had := hasNetwork(&spec)
	switch {
	case r.options.Network != nil && r.options.Network.None == had:
		return nil, &microvm.FieldError{Field: "RestoreOptions.Network.None", Value: r.options.Network.None, Reason: fmt.Sprintf("must be %v, as in the snapshot: the guest has the interface, or has none", !had)}
	case r.options.Network != nil:
		spec.Network = r.options.Network
	case had:
		spec.Network.Publish = nil
	}
	return &state.Record{
		UID: state.NewUID(), Phase: state.PhaseCreating, Created: time.Now().Round(0), Spec: spec, Files: m.Shared, Image: m.Image, Agent: m.Agent, Jailed: !r.driver.options.Bare,
	}, nil
}

// run makes the machine: of a VMM that waits for it, where there is one, else from the beginning. Recorded is called once the machine counts.
func (r *restoration) run(ctx context.Context, recorded func()) (err error) {
	if waiting := r.driver.stock.take(r); waiting != nil {
		err := r.runWaiting(ctx, recorded, waiting)
		if !errors.Is(err, microvm.ErrExited) {
			return err
		}
		if r.record, err = r.makeRecord(); err != nil { // it may have ended while it waited
			return err
		}
	}
	if err := r.prepare(ctx, recorded); err != nil {
		return err
	}
	return r.finish(ctx, recorded)
}

// prepare makes a VMM that waits to be told what it becomes, and all that a machine of the snapshot has but a name.
func (r *restoration) prepare(ctx context.Context, recorded func()) (err error) {
	d, record := r.driver, r.record
	if r.lock, err = d.state.Create(ctx, record.UID); err != nil {
		return err
	}
	r.steps = step.Begin("restore", d.options.hook)
	defer func() {
		if err != nil {
			err = r.undo(err)
		}
	}()
	if err := r.steps.Do("record", func() error { return r.lock.Draft(*record) }, nil); err != nil {
		return err
	}
	recorded()
	if err := d.equip(ctx, r.steps, record, func() error { return d.cloneDisk(ctx, record, d.snaps.Path(r.manifest, snapstore.Disk)) }); err != nil {
		return err
	}
	r.boot = &boot{driver: d, lock: r.lock, record: record, name: r.name, place: d.place(record), load: r.loading()}
	return r.steps.Do("spawn", func() error { return r.boot.prepare(ctx) }, r.boot.takeDown)
}

// undo takes all back, and gives the machine's lock back, for the reason of an error.
func (r *restoration) undo(err error) error {
	r.steps.End(&err)
	if left := r.lock.Remove(); left != nil {
		err = errors.Join(err, left)
	}
	r.lock.Unlock()
	return err
}

// finish makes the machine: it has a name, its guest runs and is its own. What is to survive power loss is flushed beside it.
func (r *restoration) finish(ctx context.Context, recorded func()) (err error) {
	d, record, steps := r.driver, r.record, r.steps
	defer func() {
		if err != nil {
			err = r.undo(err)
		}
	}()
	if err := steps.Do("name", func() error { return r.lock.Bind(r.name) }, r.lock.Unbind); err != nil {
		return err
	}
	recorded()
	staged := r.stage()
	defer staged()
	if err := steps.Do("load", func() error { return r.boot.complete(ctx) }, nil); err != nil {
		return err
	}
	if err := steps.Do("limits", func() error { return r.limit(ctx) }, nil); err != nil {
		return err
	}
	if record.Agent {
		if err := steps.Do("renew", func() error { return r.renew(ctx) }, nil); err != nil {
			return err
		}
	}
	if record.Agent && r.stands() {
		if err := steps.Do("pause", func() error { return r.pause(ctx) }, nil); err != nil {
			return err
		}
	}
	if err := steps.Do("commit", func() error { return r.commit(staged) }, nil); err != nil {
		return err
	}
	record.Phase = state.PhaseCreated
	d.tell(record, r.name, microvm.EventCreated, nil)
	d.tell(record, r.name, microvm.EventStarted, nil)
	r.lock.Unlock()
	return nil
}

// stage begins to flush what the machine has, and the record that it is to have, since nothing of it depends on the guest. Staged waits for that; it may be called again.
func (r *restoration) stage() (staged func() error) {
	record, started := *r.record, r.boot.state.Started
	record.Phase = state.PhaseCreated
	return beside(func() error {
		if hasDisk(&record.Spec) {
			if err := disk.Sync(r.driver.diskPath(record.UID)); err != nil {
				return err
			}
		}
		return errors.Join(r.lock.Stage(record), r.lock.Begin(started))
	})
}

// beside begins to do something, and returns what waits for it, and may be called again.
func beside(do func() error) (done func() error) {
	finished := make(chan struct{})
	var err error
	go func() {
		defer close(finished)
		err = do()
	}()
	return func() error {
		<-finished
		return err
	}
}

// commit says that the machine is one: from here on it can only be destroyed.
func (r *restoration) commit(staged func() error) error {
	if err := staged(); err != nil {
		return err
	}
	return r.lock.Promote()
}

// loading is what the run begins with. Where there is an agent the guest must run for it to be made the machine's own.
func (r *restoration) loading() *loading {
	d, uid := r.driver, r.manifest.UID
	return &loading{
		program: r.program, snapshot: uid, state: d.snaps.Path(r.manifest, snapstore.State), memory: r.memory, workingSet: d.snaps.WorkingSet(uid),
		paused: r.stands() && !r.record.Agent, held: r.options.Hold, pager: r.paged(), pagerEnds: d.options.PagerLoss == PagerEnd,
	}
}

// stands says whether the machine is to be paused in the end.
func (r *restoration) stands() bool { return r.options.Paused || r.options.Hold }

// paged says whether a helper is to serve the memory.
func (r *restoration) paged() bool {
	return cmp.Or(r.options.Backend, r.driver.options.MemoryBackend) == microvm.MemoryUFFD
}

// limit sets the limits of devices that are others than the snapshot's.
func (r *restoration) limit(ctx context.Context) error {
	if !hasNetwork(&r.record.Spec) || reflect.DeepEqual(r.manifest.Spec.Network, r.record.Spec.Network) {
		return nil
	}
	return r.driver.limitNetwork(ctx, r.record)
}

// takeDown ends the run that was begun.
func (b *boot) takeDown() error {
	return errors.Join(b.hangUp(), b.unwatch(), b.kill(), b.driver.endPager(b.record.UID), b.removeLeaf(), b.place.remove(), b.unbegin())
}
