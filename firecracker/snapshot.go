//go:build linux

package firecracker

import (
	"context"
	"errors"
	"fmt"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/firecracker/api"
	"github.com/tangle-network/microvm-runtime/internal/disk"
	"github.com/tangle-network/microvm-runtime/internal/snapstore"
	"github.com/tangle-network/microvm-runtime/internal/state"
	"github.com/tangle-network/microvm-runtime/internal/step"
)

// snapshotsDir is where snapshots are, in the state directory.
const snapshotsDir = "snapshots"

// layoutVersion is the number of the layout that a VMM sees: see plan.go. A snapshot has its paths, so it is restored by who has the same.
const layoutVersion = 1

// Snapshot writes a running or paused machine down.
func (d *driver) Snapshot(ctx context.Context, uid, name string, o microvm.SnapshotOptions) (info microvm.SnapshotInfo, err error) {
	err = d.locked(ctx, uid, func(ctx context.Context, lock *state.Lock, m *machine) error {
		t := &taking{driver: d, lock: lock, machine: m, name: m.name + "/" + name, options: o}
		if err := t.check(ctx); err != nil {
			return err
		}
		if err := t.run(ctx); err != nil {
			return err
		}
		info = snapshotInfo(&t.manifest)
		return nil
	})
	return info, err
}

// taking is one snapshot of one machine.
type taking struct {
	driver  *driver
	lock    *state.Lock
	machine *machine
	name    string
	options microvm.SnapshotOptions

	version  api.Version
	held     *snapstore.Hold // of the snapshot that a diff is over
	draft    *snapstore.Draft
	manifest snapstore.Manifest
	stood    time.Time // since when the guest stands
	paused   bool      // it is to be let go on
	frozen   bool      // its workload stands
}

// check refuses what can't be done, before anything is touched.
func (t *taking) check(ctx context.Context) (err error) {
	m := t.machine
	if m.state != microvm.StateRunning && m.state != microvm.StatePaused {
		return stateError("snapshot", m.state)
	}
	if err := notHeld("snapshot", m); err != nil {
		return err
	}
	for i, drive := range m.record.Spec.Drives {
		if !drive.ReadOnly {
			return fmt.Errorf("%w: drive %d, %s, is writable and not the machine's own: a snapshot would not have its content (make it read-only, or copy what is on it)", microvm.ErrUnsupported, i, drive.Path)
		}
	}
	if err := t.driver.permits(ctx, "snapshot", m.run); err != nil {
		return err
	}
	if t.version, err = t.driver.runsOn(ctx, m.run); err != nil {
		return err
	}
	if t.driver.snaps.Taken(t.name) {
		return fmt.Errorf("snapshot %q: %w", t.name, microvm.ErrExists)
	}
	if err := t.checkDiff(); err != nil {
		return err
	}
	return t.checkSpace()
}

// diffCorruptMiB is the memory from which diffs were corrupt before Firecracker 1.15 (its CHANGELOG.md).
const diffCorruptMiB = 3 << 10

var diffMended = api.Version{Major: 1, Minor: 15}

func (t *taking) checkDiff() error {
	spec := &t.machine.record.Spec
	switch {
	case !t.options.Diff:
		return nil
	case !spec.TrackDirty:
		return fmt.Errorf("%w: SnapshotOptions.Diff: the machine's VMM does not remember what pages are written (Spec.TrackDirty)", microvm.ErrUnsupported)
	case spec.MemoryMiB > diffCorruptMiB && t.version.Compare(diffMended) < 0:
		return fmt.Errorf("%w: SnapshotOptions.Diff: Firecracker %s writes wrong ones of more than %d MiB (take a full one, or install %s)", microvm.ErrUnsupported, t.version, diffCorruptMiB, diffMended)
	}
	return nil
}

// checkSpace refuses a snapshot that would be beyond the limit of them all.
func (t *taking) checkSpace() error {
	limit := t.driver.options.Limits.SnapshotMiB
	if limit == 0 {
		return nil
	}
	have, err := t.driver.snaps.Bytes()
	if err != nil {
		return err
	}
	want := int64(t.machine.record.Spec.MemoryMiB)<<20 + disk.Used(t.driver.diskPath(t.machine.record.UID))
	if have+want > int64(limit)<<20 {
		return fmt.Errorf("%w: snapshots have %d MiB, this one may need %d more, Limits.SnapshotMiB is %d (delete or prune some)", microvm.ErrExhausted, have>>20, want>>20, limit)
	}
	return nil
}

// run is the sequence of Snapshot. What stands goes on as soon as memory and disk are written, whatever becomes of the rest.
func (t *taking) run(ctx context.Context) (err error) {
	d, running := t.driver, t.machine.state == microvm.StateRunning
	if err := t.choose(ctx); err != nil {
		return err
	}
	defer t.letParentGo()
	if _, err := d.snaps.Sweep(); err != nil { // what is left of others may be what there is no space for
		return err
	}
	if t.draft, err = d.snaps.Begin(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.draft.Close()) }()
	steps := step.Begin("snapshot", d.options.hook)
	defer steps.End(&err)

	if err := steps.Do("record", func() error { return t.note(t.taking(running), "") }, func() error { return t.note(t.rest(), "") }); err != nil {
		return err
	}
	if t.machine.record.Agent {
		if err := steps.Do("freeze", func() error { return t.freeze(ctx, running) }, t.thaw); err != nil {
			return err
		}
	}
	if err := steps.Do("flush", t.flush, nil); err != nil {
		return err
	}
	if running {
		t.paused = true // also when the answer is lost
		if err := steps.Do("pause", func() error { return d.setPaused(ctx, &t.machine.record, true) }, t.resume); err != nil {
			return err
		}
	}
	t.stood = time.Now()
	if err := steps.Do("create", func() error { return t.create(ctx) }, t.discard); err != nil {
		return err
	}
	if err := steps.Do("disk", func() error { return t.copyDisk(ctx) }, nil); err != nil {
		return err
	}
	if running {
		if err := steps.Do("resume", t.resume, nil); err != nil {
			return err
		}
		t.manifest.Stood = time.Since(t.stood)
	} else if err := t.note(t.rest(), ""); err != nil { // its connections have ended
		return err
	}
	if t.frozen {
		if err := steps.Do("thaw", t.thaw, nil); err != nil {
			return err
		}
	}
	if err := steps.Do("take", t.take, nil); err != nil {
		return err
	}
	if err := steps.Do("seal", func() error { return t.seal(ctx) }, nil); err != nil {
		return err
	}
	if err := steps.Do("place", t.draft.Place, nil); err != nil {
		return err
	}
	if err := steps.Do("name", func() error { return t.draft.Bind(t.name) }, func() error { return t.draft.Unbind(t.name) }); err != nil {
		return err
	}
	if noted := t.note(t.rest(), t.dirtySince()); noted != nil { // it is there; the next is a full one
		d.log.Warn("the next snapshot can't be a diff", "uid", t.machine.record.UID, "error", noted)
	}
	d.tell(&t.machine.record, t.machine.name, microvm.EventSnapshotted, nil)
	return nil
}

// choose says whether the snapshot can be a diff: over the one since which the VMM remembers what pages are written, if that is there.
func (t *taking) choose(ctx context.Context) error {
	t.manifest.Kind = microvm.SnapshotFull
	since := t.machine.run.DirtySince
	if !t.options.Diff || since == "" {
		return nil
	}
	held, _, err := t.driver.snaps.Hold(ctx, since)
	if errors.Is(err, microvm.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	t.held = held
	t.manifest.Kind, t.manifest.Parent = microvm.SnapshotDiff, since
	return nil
}

func (t *taking) letParentGo() {
	if t.held != nil {
		t.held.Release()
	}
}

// flush makes what the guest has written to its disk survive power loss, before the pause: within it nobody could say how long that takes.
func (t *taking) flush() error {
	if !hasDisk(&t.machine.record.Spec) {
		return nil
	}
	return disk.SyncData(t.driver.diskPath(t.machine.record.UID))
}

// rest is what is left to do for who works on the machine next: nothing, unless it or its workload could not be let go on.
func (t *taking) rest() *state.Taking {
	if t.paused || t.frozen {
		return t.taking(t.paused)
	}
	return nil
}

// taking is what is written down while the snapshot is taken.
func (t *taking) taking(stands bool) *state.Taking {
	taking := &state.Taking{Stands: stands}
	if t.machine.record.Agent {
		taking.Token = t.draft.UID()
	}
	return taking
}

// note records how far it is, and since which snapshot pages are remembered: since none from the moment that the VMM may forget them. Connections that have ended in the guest end here, too, and by
// the record those of other processes.
func (t *taking) note(taking *state.Taking, dirtySince string) error {
	run := t.machine.run
	run.Taking, run.DirtySince = taking, dirtySince
	return t.driver.writeRun(t.lock, run)
}

func (t *taking) dirtySince() string {
	if t.machine.record.Spec.TrackDirty {
		return t.draft.UID()
	}
	return ""
}

// create has the VMM write its state and memory. It does so to the end also when nobody waits any more.
func (t *taking) create(ctx context.Context) error {
	place := t.driver.place(&t.machine.record)
	request := api.SnapshotCreate{
		SnapshotType: api.SnapshotFull,
		SnapshotPath: place.outlet(takenState, t.draft.Path(snapstore.State)), MemFilePath: place.outlet(takenMemory, t.draft.Path(snapstore.Memory)),
	}
	if t.manifest.Kind == microvm.SnapshotDiff {
		request.SnapshotType = api.SnapshotDiff
	}
	t.machine.run.Resets++ // also when the answer is lost
	ctx, cancel := context.WithTimeout(ctx, writePatience(&t.machine.record))
	defer cancel()
	return t.driver.withAPI(ctx, &t.machine.record, func(ctx context.Context, c *api.Client) error { return c.CreateSnapshot(ctx, request) })
}

// writePatience is how long a VMM may take to write its memory, or what it does before it answers anything else.
func writePatience(record *state.Record) time.Duration {
	const perMiB = 20 * time.Millisecond // 50 MiB/s
	return answerPatience + time.Duration(record.Spec.MemoryMiB)*perMiB
}

// discard removes what a VMM in a jail has written.
func (t *taking) discard() error { return t.driver.discardTaken(&t.machine.record) }

func (d *driver) discardTaken(record *state.Record) error {
	place := d.place(record)
	return errors.Join(place.discard(takenState), place.discard(takenMemory))
}

// copyDisk copies the machine's own disk, while nobody writes to it.
func (t *taking) copyDisk(ctx context.Context) error {
	if !hasDisk(&t.machine.record.Spec) {
		return nil
	}
	cloned, err := disk.Clone(ctx, t.draft.Path(snapstore.Disk), t.driver.diskPath(t.machine.record.UID))
	t.manifest.Copied = cloned.Copied
	return err
}

// resume lets the guest go on, whatever the caller's context says. A VMM that still writes answers when it has written. Its guest has lost all connections of its vsock then, and at this end the VMM
// keeps them open without a word: who waits for what the guest says would wait for ever.
func (t *taking) resume() error {
	err := t.driver.letGoOn(&t.machine.record)
	if err != nil {
		return err
	}
	t.paused = false
	return t.note(t.taking(false), "")
}

// letGoOn resumes a machine that stands for a snapshot.
func (d *driver) letGoOn(record *state.Record) error {
	ctx, cancel := context.WithTimeout(d.life, writePatience(record))
	defer cancel()
	return d.withAPI(ctx, record, func(ctx context.Context, c *api.Client) error { return c.PatchVM(ctx, api.VMResumed) })
}

// endTaking lets a machine go on whose snapshot was interrupted. While it can't it is as paused as it looks.
func (d *driver) endTaking(lock *state.Lock, m *machine) {
	var err error
	if m.run.Taking.Stands {
		err = d.letGoOn(&m.record)
	}
	if err == nil && m.run.Taking.Stands { // once: its user may pause it before its workload is told
		m.run.Taking.Stands = false
		err = d.noteReset(lock, m.run)
	}
	if err == nil && m.run.Taking.Token != "" && !d.letWorkloadGoOn(m.record.UID, m.run.Taking.Token) {
		return
	}
	if err == nil {
		err = d.discardTaken(&m.record)
	}
	if err == nil && m.run.State == microvm.StatePaused { // it was written down as it stood
		err = d.noteReset(lock, m.run)
	}
	if err == nil {
		m.run.Taking = nil
		err = lock.WriteRun(*m.run)
	}
	if err != nil {
		d.log.Warn("a machine still stands for a snapshot that was interrupted", "uid", m.record.UID, "error", err)
	}
}

// noteReset records that a snapshot may have ended the connections of a machine's vsock.
func (d *driver) noteReset(lock *state.Lock, run *state.Run) error {
	run.Resets++
	return d.writeRun(lock, run)
}

// writeRun writes a run's record and ends the connections that it says to have ended.
func (d *driver) writeRun(lock *state.Lock, run *state.Run) error {
	err := lock.WriteRun(*run)
	d.lines.cut(lock.UID(), momentOf(run))
	return err
}

// take brings what the VMM has written to the draft.
func (t *taking) take() error {
	place := t.driver.place(&t.machine.record)
	return errors.Join(place.take(takenState, t.draft.Path(snapstore.State)), place.take(takenMemory, t.draft.Path(snapstore.Memory)))
}

// seal writes down what the snapshot is.
func (t *taking) seal(ctx context.Context) error {
	cpu, err := hostCPU()
	if err != nil {
		return err
	}
	r := &t.machine.record
	m := &t.manifest
	m.Created, m.Machine, m.Layout, m.Firecracker, m.CPU = time.Now().Round(0), r.UID, layoutVersion, t.version.String(), cpu
	m.Spec, m.Image, m.Agent, m.Shared = r.Spec, r.Image, r.Agent, r.Files
	m.Labels, m.Ephemeral = t.options.Labels, t.options.Ephemeral
	if m.Ephemeral {
		m.Maker = t.driver.self
	}
	return t.draft.Seal(ctx, t.name, m)
}

// snapshotInfo is a manifest as callers see it.
func snapshotInfo(m *snapstore.Manifest) microvm.SnapshotInfo {
	return microvm.SnapshotInfo{
		UID: m.UID, Name: m.Name, Kind: m.Kind, Parent: m.Parent, Created: m.Created, Machine: m.Machine, Spec: m.Spec, Agent: m.Agent, Firecracker: m.Firecracker,
		Labels: m.Labels, Ephemeral: m.Ephemeral, Unfrozen: m.Unfrozen, Stood: m.Stood, Copied: m.Copied,
		StateBytes: m.Files[snapstore.State].Data, MemoryBytes: m.Files[snapstore.Memory].Data, DiskBytes: m.Files[snapstore.Disk].Data,
	}
}
