package inmemory

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
)

// snapshot is a machine that is written down: what it had on its console, too.
type snapshot struct {
	info    microvm.SnapshotInfo
	network bool
	holds   int // who keeps it from being deleted
}

// findSnapshot is enter for one snapshot.
func (d *driver) findSnapshot(ctx context.Context, verb, uid string) (*snapshot, error) {
	if err := d.enter(ctx, verb, uid); err != nil {
		return nil, err
	}
	s := d.snapshots[uid]
	if s == nil {
		d.mu.Unlock()
		return nil, fmt.Errorf("snapshot %q: %w", uid, microvm.ErrNotFound)
	}
	return s, nil
}

func (d *driver) Snapshot(ctx context.Context, uid, name string, o microvm.SnapshotOptions) (microvm.SnapshotInfo, error) {
	m, err := d.find(ctx, "snapshot", uid)
	if err != nil {
		return microvm.SnapshotInfo{}, err
	}
	defer d.mu.Unlock()
	if !m.runs() {
		return microvm.SnapshotInfo{}, stateError("snapshot", m.info.State)
	}
	if m.info.Held {
		return microvm.SnapshotInfo{}, fmt.Errorf("%w: can't snapshot a machine that is held", microvm.ErrState)
	}
	if slices.ContainsFunc(m.info.Spec.Drives, func(drive microvm.Drive) bool { return !drive.ReadOnly }) {
		return microvm.SnapshotInfo{}, fmt.Errorf("%w: a drive is writable and not the machine's own", microvm.ErrUnsupported)
	}
	if o.Diff && !m.info.Spec.TrackDirty {
		return microvm.SnapshotInfo{}, fmt.Errorf("%w: SnapshotOptions.Diff needs Spec.TrackDirty", microvm.ErrUnsupported)
	}
	full := m.info.Name + "/" + name
	for _, s := range d.snapshots {
		if s.info.Name == full {
			return microvm.SnapshotInfo{}, fmt.Errorf("snapshot %q: %w", full, microvm.ErrExists)
		}
	}
	info := microvm.SnapshotInfo{
		UID: strings.ToLower(rand.Text()[:12]), Name: full, Kind: microvm.SnapshotFull, Created: time.Now(), Machine: uid, Spec: m.info.Spec.Copy(), Agent: m.info.Agent,
		Labels: maps.Clone(o.Labels), Ephemeral: o.Ephemeral,
	}
	if o.Diff && d.snapshots[m.since] != nil {
		info.Kind, info.Parent = microvm.SnapshotDiff, m.since
	}
	if d.snapshots == nil {
		d.snapshots = map[string]*snapshot{}
	}
	d.snapshots[info.UID] = &snapshot{info: info, network: m.info.Network != nil}
	m.since = info.UID
	d.tell(m, microvm.EventSnapshotted, nil)
	return info, nil
}

func (d *driver) ResolveSnapshot(ctx context.Context, ref string) (string, error) {
	if err := d.enter(ctx, "resolve snapshot", ref); err != nil {
		return "", err
	}
	defer d.mu.Unlock()
	for uid, s := range d.snapshots {
		if s.info.Name == ref || uid == ref {
			return uid, nil
		}
	}
	return "", fmt.Errorf("snapshot %q: %w", ref, microvm.ErrNotFound)
}

func (d *driver) SnapshotInfo(ctx context.Context, uid string) (microvm.SnapshotInfo, error) {
	s, err := d.findSnapshot(ctx, "snapshot info", uid)
	if err != nil {
		return microvm.SnapshotInfo{}, err
	}
	defer d.mu.Unlock()
	return s.info, nil
}

func (d *driver) Snapshots(ctx context.Context) ([]microvm.SnapshotInfo, error) {
	if err := d.enter(ctx, "snapshots", ""); err != nil {
		return nil, err
	}
	defer d.mu.Unlock()
	infos := make([]microvm.SnapshotInfo, 0, len(d.snapshots))
	for _, s := range d.snapshots {
		infos = append(infos, s.info)
	}
	slices.SortFunc(infos, func(a, b microvm.SnapshotInfo) int { return cmp.Compare(a.Name, b.Name) })
	return infos, nil
}

func (d *driver) DeleteSnapshot(ctx context.Context, uid string) error {
	if _, err := d.findSnapshot(ctx, "delete snapshot", uid); err != nil {
		return err
	}
	defer d.mu.Unlock()
	return d.deleteSnapshot(uid)
}

// HoldSnapshot has DeleteSnapshot refuse.
func (d *driver) HoldSnapshot(ctx context.Context, uid string) (release func(), err error) {
	s, err := d.findSnapshot(ctx, "hold snapshot", uid)
	if err != nil {
		return nil, err
	}
	defer d.mu.Unlock()
	s.holds++
	return sync.OnceFunc(func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		s.holds--
	}), nil
}

// deleteSnapshot does it under the lock.
func (s *Store) deleteSnapshot(uid string) error {
	if s.snapshots[uid].holds > 0 {
		return fmt.Errorf("%w: it is being forked", microvm.ErrBusy)
	}
	for _, other := range s.snapshots {
		if other.info.Parent == uid {
			return fmt.Errorf("%w: snapshot %s is over it", microvm.ErrBusy, other.info.Name)
		}
	}
	for _, m := range s.machines {
		if m.runs() && m.from == uid {
			return fmt.Errorf("%w: machine %s runs from it", microvm.ErrBusy, m.info.Name)
		}
	}
	delete(s.snapshots, uid)
	return nil
}

// VerifySnapshot finds nothing: there are no files.
func (d *driver) VerifySnapshot(ctx context.Context, uid string) error {
	_, err := d.findSnapshot(ctx, "verify snapshot", uid)
	if err == nil {
		d.mu.Unlock()
	}
	return err
}

func (d *driver) FlattenSnapshot(ctx context.Context, uid string) error {
	s, err := d.findSnapshot(ctx, "flatten snapshot", uid)
	if err != nil {
		return err
	}
	defer d.mu.Unlock()
	s.info.Kind, s.info.Parent = microvm.SnapshotFull, ""
	return nil
}

func (d *driver) Restore(ctx context.Context, uid, name string, o microvm.RestoreOptions) (string, microvm.Evidence, error) {
	s, err := d.findSnapshot(ctx, "restore", uid)
	if err != nil {
		return "", nil, err
	}
	defer d.mu.Unlock()
	if o.Network != nil && o.Network.None == s.network {
		return "", nil, &microvm.FieldError{Field: "RestoreOptions.Network.None", Value: o.Network.None, Reason: "must be as in the snapshot"}
	}
	spec := s.info.Spec.Copy()
	if spec.Network.Publish = nil; o.Network != nil {
		spec.Network = o.Network
	}
	if o.Labels != nil {
		spec.Labels = o.Labels
	}
	m, err := d.create(name, spec.Copy())
	if err != nil {
		return "", nil, err
	}
	d.start(m)
	m.from, m.since = uid, uid
	if o.Paused || o.Hold {
		m.info.State, m.info.Held = microvm.StatePaused, o.Hold
	}
	return m.info.UID, nil, nil
}
