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
	r := &restoration{driver: d, manifest: &manifest, name: name, options: o}
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

	memory   string // Path of the snapshot's whole memory.
	record   *state.Record
	evidence microvm.Evidence
}

// check finds out whether it can be done, before anything is touched.
func (r *restoration) check(ctx context.Context) (err error) {
	d := r.driver
	if d.state.Taken(r.name) { // Bind decides; this spares the work.
		return fmt.Errorf("name %q: %w", r.name, microvm.ErrExists)
	}
	if err := d.fits(ctx, r.manifest); err != nil {
		return err
	}
	if r.record, err = r.makeRecord(); err != nil {
		return err
	}
	if err := d.supports(ctx, planOf(r.record)); err != nil {
		return err
	}
	if err := d.snaps.Check(ctx, r.manifest.UID); err != nil {
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

// run is the sequence of Restore.
func (r *restoration) run(ctx context.Context, recorded func()) (err error) {
	d, record := r.driver, r.record
	lock, err := d.state.Create(ctx, record.UID)
	if err != nil {
		return err
	}
	defer lock.Unlock()
	defer func() {
		if err != nil {
			err = errors.Join(err, lock.Remove())
		}
	}()
	steps := step.Begin("restore", d.options.hook)
	defer steps.End(&err)

	if err := d.acquire(ctx, steps, lock, r.name, record, recorded, func() error { return d.cloneDisk(ctx, record, d.snaps.Path(r.manifest, snapstore.Disk)) }); err != nil {
		return err
	}
	b := &boot{driver: d, lock: lock, record: record, name: r.name, place: d.place(record), load: r.loading()}
	if err := steps.Do("load", func() error { return b.run(ctx) }, b.takeDown); err != nil {
		return err
	}
	if err := steps.Do("limits", func() error { return r.limit(ctx) }, nil); err != nil {
		return err
	}
	if record.Agent {
		if err := steps.Do("renew", func() error { return r.renew(ctx, b) }, nil); err != nil {
			return err
		}
	}
	if record.Agent && r.options.Paused {
		if err := steps.Do("pause", func() error { return r.pause(ctx, b) }, nil); err != nil {
			return err
		}
	}
	record.Phase = state.PhaseCreated
	if err := steps.Do("commit", func() error { return lock.WriteRecord(*record) }, nil); err != nil {
		return err
	}
	d.tell(record, r.name, microvm.EventCreated, nil)
	d.tell(record, r.name, microvm.EventStarted, nil)
	return nil
}

// loading is what the run begins with. Where there is an agent the guest must run for it to be made the machine's own.
func (r *restoration) loading() *loading {
	state := r.driver.snaps.Path(r.manifest, snapstore.State)
	return &loading{snapshot: r.manifest.UID, state: state, memory: r.memory, paused: r.options.Paused && !r.record.Agent, pager: cmp.Or(r.options.Backend, r.driver.options.MemoryBackend) == microvm.MemoryUFFD}
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
	return errors.Join(b.unwatch(), b.kill(), b.driver.endPager(b.record.UID), b.removeLeaf(), b.place.remove(), b.unbegin())
}
