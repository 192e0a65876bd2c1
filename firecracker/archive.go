//go:build linux

package firecracker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/disk"
	"github.com/tangle-network/microvm-runtime/internal/snapstore"
)

// ExportSnapshot writes a snapshot, with what its machine boots from.
func (d *driver) ExportSnapshot(ctx context.Context, uid string, w io.Writer, o microvm.ExportOptions) error {
	return d.reading(ctx, func(ctx context.Context) error {
		return d.snaps.Export(ctx, uid, w, snapstore.ExportOptions{Key: o.Key})
	})
}

// ImportSnapshot makes a snapshot of an export. What its machines boot from goes to the store.
func (d *driver) ImportSnapshot(ctx context.Context, name string, r io.Reader, o microvm.ImportOptions) (info microvm.SnapshotInfo, err error) {
	err = d.reading(ctx, func(ctx context.Context) error {
		if _, err := d.snaps.Sweep(); err != nil { // what is left of others may be what there is no space for
			return err
		}
		most, err := d.snapshotSpace()
		if err != nil {
			return err
		}
		k := &keeper{driver: d}
		defer k.release()
		m, err := d.snaps.Import(ctx, r, snapstore.ImportOptions{Name: name, Trusted: o.Trusted, Unsigned: o.Unsigned, MaxBytes: most, Keep: k.keep})
		if errors.Is(err, microvm.ErrExhausted) {
			return fmt.Errorf("%w, Limits.SnapshotMiB is %d for all (delete or prune some)", err, d.options.Limits.SnapshotMiB)
		}
		if err != nil {
			return err
		}
		info = snapshotInfo(&m)
		_, misfit := d.fits(ctx, &m)
		info.Problem = problem(misfit)
		return nil
	})
	return info, err
}

// snapshotSpace returns how many bytes more snapshots may have, 0 for as many as there are.
func (d *driver) snapshotSpace() (int64, error) {
	limit := int64(d.options.Limits.SnapshotMiB) << 20
	if limit == 0 {
		return 0, nil
	}
	have, err := d.snaps.Bytes()
	if err == nil && have >= limit {
		err = fmt.Errorf("%w: snapshots have %d MiB, Limits.SnapshotMiB is %d (delete or prune some)", microvm.ErrExhausted, have>>20, limit>>20)
	}
	return limit - have, err
}

// keeper takes the files that machines share to the store.
type keeper struct {
	driver *driver
	drop   func() // Gives the right back to rely on what is in the store. Nil until there is something: an export may take long to come.
}

// keep makes a file of the store's of an export's, of which the draft that it is in has no more need.
func (k *keeper) keep(ctx context.Context, path, sum string) (string, error) {
	if k.drop == nil {
		drop, err := k.driver.store.Hold(ctx)
		if err != nil {
			return "", err
		}
		k.drop = drop
	}
	file, err := k.driver.store.Make(ctx, "snapshot\x00"+sum, func(temp string) error {
		err := os.Rename(path, temp)
		if errors.Is(err, syscall.EXDEV) {
			_, err = disk.Clone(ctx, temp, path)
		}
		return err
	})
	return file.Path, err
}

func (k *keeper) release() {
	if k.drop != nil {
		k.drop()
	}
}

// PruneSnapshots deletes what a policy does not let stay.
func (d *driver) PruneSnapshots(ctx context.Context, o microvm.PruneOptions) (deleted []microvm.SnapshotInfo, freed int64, err error) {
	policy := snapstore.Policy{Keep: o.Keep, MaxBytes: int64(o.MaxMiB) << 20, DryRun: o.DryRun}
	if o.OlderThan > 0 {
		policy.Before = time.Now().Add(-o.OlderThan)
	}
	err = d.reading(ctx, func(ctx context.Context) error {
		removed, err := d.snaps.Prune(ctx, policy, d.runsFrom)
		for _, one := range removed {
			deleted = append(deleted, snapshotInfo(&one.Manifest))
			freed += one.Bytes
			if !o.DryRun {
				d.stock.drop(ctx, d, one.Manifest.UID) // what waits for it has its files
				d.dropParent(ctx, &one.Manifest)
			}
		}
		return err
	})
	return deleted, freed, err
}
