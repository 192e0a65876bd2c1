//go:build linux

package firecracker

import (
	"context"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/firecracker/api"
	"github.com/tangle-network/microvm-runtime/internal/state"
)

// loading is the snapshot that a run begins with, in place of a boot.
type loading struct {
	program       program // Of the version that made it.
	snapshot      string  // Its uid.
	state, memory string  // Paths of its files.
	paused        bool    // The guest executes nothing before it is resumed.
	held          bool    // The machine is nobody's before it is claimed.
	pager         bool    // A helper serves the memory,
	pagerEnds     bool    // and the machine ends with it.
	workingSet    string  // Path of which pages machines ask for first, which need not be there.
}

// describe says in a run's record what it begins with.
func (l *loading) describe(run *state.Run, record *state.Record) {
	run.Snapshot, run.Pager, run.PagerEnds, run.Held = l.snapshot, l.pager, l.pager && l.pagerEnds, l.held
	if record.Spec.TrackDirty {
		run.DirtySince = l.snapshot
	}
	if l.paused {
		run.State = microvm.StatePaused
	}
}

// loadSnapshot tells a VMM that has no guest yet what it becomes, as soon as it listens.
func (b *boot) loadSnapshot(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, answerPatience)
	defer cancel()
	stop := cancelWhen(cancel, b.process.Done())
	defer stop()
	request := b.loadRequest()
	err := b.whenItListens(ctx, func(ctx context.Context, c *api.Client) error { return c.LoadSnapshot(ctx, request) })
	if err != nil {
		return b.notAnswered(ctx, err)
	}
	return nil
}

// trackingRenamed is the version from which a VMM is told otherwise to remember what pages are written.
var trackingRenamed = api.Version{Major: 1, Minor: 13}

func (b *boot) loadRequest() api.SnapshotLoad {
	request := api.SnapshotLoad{
		SnapshotPath: loadedState, MemBackend: &api.MemBackend{BackendType: "File", BackendPath: loadedMemory}, ResumeVM: !b.load.paused,
	}
	if b.load.pager {
		request.MemBackend = &api.MemBackend{BackendType: "Uffd", BackendPath: pagerSocket}
	}
	if !b.record.Spec.TrackDirty {
		return request
	}
	if b.program.version.Compare(trackingRenamed) < 0 {
		request.EnableDiffSnapshots = true
	} else {
		request.TrackDirtyPages = true
	}
	return request
}
