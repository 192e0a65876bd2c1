package microvm

import (
	"context"
	"io"
	"iter"
	"net"
)

// Driver is what a [Runtime] stands on. Callers use Runtime; who writes a driver proves it with package runtimetest.
//
// Specs and names arrive validated, except for what only the host can say. Every method may be called by many goroutines at once. Errors wrap the
// sentinels of this package. A driver that can do more implements [Pauser], [Renamer], [Updater], [Meter], [Recoverer], [Trimmer], [Snapshotter], [Exporter], [Pruner], [Claimer],
// [Dialer], [Consoler] and [Watcher] too.
type Driver interface {
	// Create makes a machine and returns its uid; it starts no process. ErrExists when the name is taken.
	Create(ctx context.Context, name string, spec Spec) (uid string, err error)
	// Resolve returns the uid of the machine with this name, else of the one with this uid, else ErrNotFound.
	Resolve(ctx context.Context, ref string) (uid string, err error)
	// Info returns ErrNotFound when there is no such machine.
	Info(ctx context.Context, uid string) (Info, error)
	// List returns all machines, sorted by name, then uid.
	List(ctx context.Context) ([]Info, error)
	// Start boots a created or stopped machine. A running one is left as it is; a paused one is ErrState.
	Start(ctx context.Context, uid string, options StartOptions) error
	// Stop powers a running or paused machine off and returns its Exit; a stopped one's is returned again.
	// A created one is ErrState.
	Stop(ctx context.Context, uid string, options StopOptions) (Exit, error)
	// Wait returns the Exit when the present run ends, at once when none runs. A created machine is ErrState.
	Wait(ctx context.Context, uid string) (Exit, error)
	// Destroy ends the machine, whatever its state, and removes all that it had. ErrNotFound when there is none.
	Destroy(ctx context.Context, uid string) error
	// Close ends what the driver has in this process. Machines run on.
	Close() error
}

// Pauser is a driver that can hold a machine still.
type Pauser interface {
	// Pause holds a running machine's vCPUs. A paused one is left as it is.
	Pause(ctx context.Context, uid string) error
	// Resume lets a paused machine's vCPUs go on. A running one is left as it is.
	Resume(ctx context.Context, uid string) error
}

// Renamer is a driver that can give a machine another name.
type Renamer interface {
	// Rename is atomic: at no time has the machine two names or none. ErrExists when the name is taken.
	Rename(ctx context.Context, uid, name string) error
}

// Updater is a driver that can change a machine.
type Updater interface {
	// Update makes the change, at once where the machine runs. What it asks for is checked whole before anything is changed (Change.Apply).
	Update(ctx context.Context, uid string, change Change) error
}

// Meter is a driver that counts.
type Meter interface {
	// Stats returns what a machine has done, in any state.
	Stats(ctx context.Context, uid string) (Stats, error)
}

// Recoverer is a driver whose machines outlive the process that works on them.
type Recoverer interface {
	// Recover makes true what the records say, and finishes or undoes what was interrupted. It is safe beside other processes, and the error is of what keeps it from looking at all.
	Recover(ctx context.Context, options RecoverOptions) (Report, error)
}

// Snapshotter is a driver that can write machines down and make others of what it wrote. Snapshots are told by uid.
type Snapshotter interface {
	// Snapshot writes a running or paused machine down. A snapshot that fails leaves the machine as it was, and nothing else. ErrExists when the machine's name has one of this name already.
	Snapshot(ctx context.Context, uid, name string, options SnapshotOptions) (SnapshotInfo, error)
	// ResolveSnapshot returns the uid of the snapshot with this name, "machine/snapshot", else of the one with this uid, else ErrNotFound.
	ResolveSnapshot(ctx context.Context, ref string) (snapshot string, err error)
	// SnapshotInfo returns ErrNotFound when there is no such snapshot.
	SnapshotInfo(ctx context.Context, snapshot string) (SnapshotInfo, error)
	// Snapshots returns all snapshots, sorted by name.
	Snapshots(ctx context.Context) ([]SnapshotInfo, error)
	// DeleteSnapshot removes a snapshot, unless ErrBusy: another, or a machine that runs, needs it.
	DeleteSnapshot(ctx context.Context, snapshot string) error
	// HoldSnapshot keeps a snapshot from being deleted until it is released: DeleteSnapshot waits, or is ErrBusy. ErrNotFound when there is none.
	HoldSnapshot(ctx context.Context, snapshot string) (release func(), err error)
	// VerifySnapshot reads everything that the snapshot is made of: ErrIncompatible where it is not what was written.
	VerifySnapshot(ctx context.Context, snapshot string) error
	// FlattenSnapshot makes a diff a full one.
	FlattenSnapshot(ctx context.Context, snapshot string) error
	// Restore makes a machine of a snapshot that runs, or is paused, and nothing when it fails. ErrExists when the name is taken, ErrIncompatible when this host is not one for it.
	Restore(ctx context.Context, snapshot, name string, options RestoreOptions) (uid string, evidence Evidence, err error)
}

// Claimer is a driver that can hold restored machines ready, and hand each out once.
type Claimer interface {
	// Claim hands out a machine that is held under a name. ErrNotFound when it has another by now, ErrState when it is not held, ErrExists when the new name is taken.
	Claim(ctx context.Context, uid, held, name string, options ClaimOptions) (Evidence, error)
	// Discard destroys a machine that is held under a name, or that does not run. ErrNotFound when it has another by now, ErrState when it runs for somebody.
	Discard(ctx context.Context, uid, held string) error
}

// Exporter is a [Snapshotter] whose snapshots can be brought to another host.
type Exporter interface {
	// ExportSnapshot writes all that a restore of the snapshot needs, so that it needs no other snapshot there. ErrNotFound when there is none.
	ExportSnapshot(ctx context.Context, snapshot string, w io.Writer, options ExportOptions) error
	// ImportSnapshot makes a snapshot of an export under the name, or, where that is empty, under its own: ErrExists when it is taken. Nothing of it is visible before the whole of r is known to be
	// what was exported and who has signed it to be trusted, else ErrInvalid; and nothing is left of what fails.
	ImportSnapshot(ctx context.Context, name string, r io.Reader, options ImportOptions) (SnapshotInfo, error)
}

// Pruner is a [Snapshotter] that deletes by age, number and size.
type Pruner interface {
	// PruneSnapshots deletes the snapshots that the options do not let stay and nothing needs, and returns them, also with an error, and how many bytes they had.
	PruneSnapshots(ctx context.Context, options PruneOptions) (deleted []SnapshotInfo, freed int64, err error)
}

// Trimmer is a driver that can make a machine's disk smaller on the host.
type Trimmer interface {
	// Trim makes holes of what the file system on a created or stopped machine's own disk does not use, and returns how many bytes that gave back.
	Trim(ctx context.Context, uid string) (freed int64, err error)
}

// Dialer is a driver that can reach what listens in the guest, and be reached from it.
type Dialer interface {
	// Dial connects to a vsock port of the guest.
	Dial(ctx context.Context, uid string, port uint32) (net.Conn, error)
	// Listen accepts the guest's connections to a vsock port of the host (CID 2).
	Listen(ctx context.Context, uid string, port uint32) (net.Listener, error)
}

// Consoler is a driver that keeps what the guest wrote to its serial console.
type Consoler interface {
	Console(ctx context.Context, uid string, options ConsoleOptions) (io.ReadCloser, error)
}

// Watcher is a driver that tells what happens.
type Watcher interface {
	// Watch tells everything from its call on, until ctx ends or the iteration is left.
	Watch(ctx context.Context) (iter.Seq2[Event, error], error)
}
