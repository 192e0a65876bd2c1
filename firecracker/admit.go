//go:build linux

package firecracker

import (
	"context"
	"fmt"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/state"
)

// admit checks the limits, and holds the right to create until release is called, so that two creates can't both take what is left for one: once a machine is on record it counts, long
// before its disk is there. Release may be called more than once.
func (d *driver) admit(ctx context.Context, record *state.Record) (release func(), err error) {
	limits := d.options.Limits
	if limits == (Limits{}) {
		return func() {}, nil
	}
	release, err = d.state.LockAll(ctx)
	if err != nil {
		return nil, err
	}
	used, err := d.used()
	if err == nil {
		err = limits.check(used, Limits{VMs: 1, MemoryMiB: record.Spec.MemoryMiB, DiskMiB: diskMiB(record)})
	}
	if err != nil {
		release()
		return nil, err
	}
	return release, nil
}

// used returns what all machines have together.
func (d *driver) used() (Limits, error) {
	uids, err := d.state.UIDs()
	if err != nil {
		return Limits{}, err
	}
	names, err := d.state.Names()
	if err != nil {
		return Limits{}, err
	}
	var used Limits
	for _, uid := range uids {
		if names[uid] == "" && (d.waits(uid) || d.state.Abandoned(uid)) { // what may become one, or the rest of one, which Destroy removes
			continue
		}
		used.VMs++
		if record, err := d.state.ReadRecord(uid); err == nil {
			used.MemoryMiB += record.Spec.MemoryMiB
			used.DiskMiB += diskMiB(&record)
		}
	}
	return used, nil
}

func (l Limits) check(used, wanted Limits) error {
	for _, limit := range []struct {
		name                string
		limit, used, wanted int
	}{
		{"Limits.VMs", l.VMs, used.VMs, wanted.VMs},
		{"Limits.MemoryMiB", l.MemoryMiB, used.MemoryMiB, wanted.MemoryMiB},
		{"Limits.DiskMiB", l.DiskMiB, used.DiskMiB, wanted.DiskMiB},
	} {
		if limit.limit > 0 && limit.used+limit.wanted > limit.limit {
			return fmt.Errorf("%w: %s %d: %d are in use, %d more are wanted", microvm.ErrExhausted, limit.name, limit.limit, limit.used, limit.wanted)
		}
	}
	return nil
}
