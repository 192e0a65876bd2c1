//go:build linux

package firecracker

import (
	"context"
	"errors"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/snapstore"
)

// ResolveSnapshot finds a snapshot by name, else by uid.
func (d *driver) ResolveSnapshot(ctx context.Context, ref string) (uid string, err error) {
	err = d.reading(ctx, func(context.Context) error {
		uid, err = d.snaps.Lookup(ref)
		return err
	})
	return uid, err
}

// SnapshotInfo reads a snapshot's manifest.
func (d *driver) SnapshotInfo(ctx context.Context, uid string) (info microvm.SnapshotInfo, err error) {
	err = d.reading(ctx, func(ctx context.Context) error {
		m, err := d.snaps.Read(uid)
		if err == nil {
			info = snapshotInfo(&m)
			_, misfit := d.fits(ctx, &m)
			info.Problem = problem(misfit)
		}
		return err
	})
	return info, err
}

// Snapshots reads the manifests of all snapshots.
func (d *driver) Snapshots(ctx context.Context) (infos []microvm.SnapshotInfo, err error) {
	err = d.reading(ctx, func(ctx context.Context) error {
		all, err := d.snaps.List()
		if err != nil {
			return err
		}
		infos = make([]microvm.SnapshotInfo, 0, len(all))
		for _, one := range all {
			info := snapshotInfo(&one.Manifest)
			if one.Problem == nil {
				_, one.Problem = d.fits(ctx, &one.Manifest)
			}
			info.Problem = problem(one.Problem)
			infos = append(infos, info)
		}
		return nil
	})
	return infos, err
}

func problem(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// DeleteSnapshot removes a snapshot that nothing needs.
func (d *driver) DeleteSnapshot(ctx context.Context, uid string) error {
	return d.reading(ctx, func(ctx context.Context) error {
		m, _ := d.snaps.Read(uid)
		err := d.snaps.Delete(ctx, uid, func() (string, error) { return d.runsFrom(uid) })
		if err == nil {
			d.dropParent(ctx, &m)
		}
		if _, gone := d.snaps.Read(uid); err == nil || errors.Is(gone, microvm.ErrNotFound) {
			d.stock.drop(ctx, d, uid) // what waits for it has its files
		}
		return err
	})
}

// HoldSnapshot has others wait who would delete a snapshot.
func (d *driver) HoldSnapshot(ctx context.Context, uid string) (release func(), err error) {
	err = d.reading(ctx, func(ctx context.Context) error {
		hold, _, err := d.snaps.Hold(ctx, uid)
		if err == nil {
			release = hold.Release
		}
		return err
	})
	return release, err
}

// runsFrom returns the name of a machine whose run began with the snapshot.
func (d *driver) runsFrom(snapshot string) (string, error) {
	uids, err := d.state.UIDs()
	if err != nil {
		return "", err
	}
	for _, uid := range uids {
		run, err := d.state.ReadRun(uid)
		if err != nil {
			return "", err
		}
		if run == nil || run.Snapshot != snapshot || d.waits(uid) {
			continue
		}
		name, err := d.state.NameOf(uid)
		if err == nil && name == "" {
			name = uid
		}
		return name, err
	}
	return "", nil
}

// VerifySnapshot reads all files of a snapshot, and of those that it is over.
func (d *driver) VerifySnapshot(ctx context.Context, uid string) error {
	return d.reading(ctx, func(ctx context.Context) error { return d.snaps.Verify(ctx, uid) })
}

// FlattenSnapshot makes a diff a full one.
func (d *driver) FlattenSnapshot(ctx context.Context, uid string) error {
	return d.reading(ctx, func(ctx context.Context) error { return d.snaps.Flatten(ctx, uid) })
}

// dropEphemeral deletes a snapshot that was to go with the last machine that runs from it.
func (d *driver) dropEphemeral(snapshot string) {
	m, err := d.snaps.Read(snapshot)
	if err != nil || !m.Ephemeral {
		return
	}
	if err := d.deleteUnused(d.life, snapshot); err != nil {
		d.log.Warn("a snapshot stays that nobody needs", "snapshot", m.Name, "error", err)
	}
}

// parentGlance is how long an ephemeral snapshot may be held that goes with what was over it: whoever restores it sees to its end otherwise.
const parentGlance = 100 * time.Millisecond

// dropParent deletes what a snapshot that is gone was over, where that was to go with the last that needs it.
func (d *driver) dropParent(ctx context.Context, gone *snapstore.Manifest) {
	if gone.Parent == "" {
		return
	}
	m, err := d.snaps.Read(gone.Parent)
	if err != nil || !m.Ephemeral {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), parentGlance)
	defer cancel()
	if err := d.deleteUnused(ctx, m.UID); err != nil {
		d.log.Warn("a snapshot stays that nobody needs", "snapshot", m.Name, "error", err)
	}
}

// deleteUnused deletes a snapshot, unless something needs it.
func (d *driver) deleteUnused(ctx context.Context, snapshot string) error {
	ctx, cancel := context.WithTimeout(ctx, undoPatience)
	defer cancel()
	m, _ := d.snaps.Read(snapshot)
	err := d.snaps.Delete(ctx, snapshot, func() (string, error) { return d.runsFrom(snapshot) })
	if err == nil {
		d.dropParent(ctx, &m)
	}
	if errors.Is(err, microvm.ErrBusy) || errors.Is(err, microvm.ErrNotFound) {
		return nil
	}
	return err
}
