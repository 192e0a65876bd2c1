package microvm

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// SnapshotKind is how much of the memory a snapshot holds itself.
type SnapshotKind string

// The kinds of snapshots.
const (
	SnapshotFull SnapshotKind = "full"
	SnapshotDiff SnapshotKind = "diff" // What was written since its parent. The rest is the parent's.
)

// SnapshotInfo says what a snapshot is. It is plain data with stable JSON.
type SnapshotInfo struct {
	UID     string       `json:"uid"`              // 12 of a–z and 2–7, as of machines.
	Name    string       `json:"name"`             // "machine/snapshot", by the machine's name at that time. It stays taken until the snapshot is deleted.
	Kind    SnapshotKind `json:"kind"`             // What was asked for, unless that would have lost pages.
	Parent  string       `json:"parent,omitempty"` // Uid, of a diff.
	Created time.Time    `json:"created"`

	Machine     string            `json:"machine"`     // Uid of the machine.
	Spec        Spec              `json:"spec"`        // What the machine was.
	Agent       bool              `json:"agent"`       // The guest agent runs in it.
	Firecracker string            `json:"firecracker"` // The version that made it, which restores it.
	Labels      map[string]string `json:"labels,omitempty"`
	Ephemeral   bool              `json:"ephemeral,omitempty"` // It goes with the last machine that needs it.

	StateBytes  int64 `json:"state_bytes"`  // On the host's disk: of the devices' state,
	MemoryBytes int64 `json:"memory_bytes"` // of the memory,
	DiskBytes   int64 `json:"disk_bytes"`   // and of the machine's own disk, what other files share of it too.

	Stood  time.Duration `json:"stood,omitempty"`  // How long the guest stood for it. 0 where it was paused before.
	Copied int64         `json:"copied,omitempty"` // Bytes of the machine's disk that were copied, since the file system can't share blocks (xfs and btrfs can).

	// Unfrozen says why what the agent has started was not frozen: in a machine that is restored it goes on before the machine is its own. Empty where it was, or there is no agent.
	Unfrozen string `json:"unfrozen,omitempty"`

	Problem string `json:"problem,omitempty"` // Why it can't be restored, as far as that is known without looking at its files.
}

// SnapshotOptions are the options of VM.Snapshot. Nil, or the zero value, is the default.
type SnapshotOptions struct {
	// Diff holds only what was written since the snapshot before, where there is one and no page is lost by it; else the snapshot is a full one, and its Kind says so. Needs
	// Spec.TrackDirty.
	Diff bool
	// Labels are the snapshot's own, as Spec.Labels are a machine's. Optional.
	Labels map[string]string
	// Ephemeral lets the snapshot go when the last machine that was restored from it has ended its run, or when the last diff over it is deleted. One from which no machine runs goes by Recover, once the process that took it has ended.
	Ephemeral bool
}

// Validate says whether the options make sense: nil, or a *[FieldError].
func (o *SnapshotOptions) Validate() error {
	if bad := checkLabels("SnapshotOptions.Labels", o.Labels); bad != nil {
		return bad
	}
	return nil
}

// SnapshotFilter chooses snapshots. Nil, or the zero value, chooses all.
type SnapshotFilter struct {
	Machine string            // Uid of the machine that they are of.
	Labels  map[string]string // That all of them have.
}

// Match says whether the filter chooses a snapshot.
func (f *SnapshotFilter) Match(info *SnapshotInfo) bool {
	if f == nil {
		return true
	}
	if f.Machine != "" && f.Machine != info.Machine {
		return false
	}
	for key, want := range f.Labels {
		if got, ok := info.Labels[key]; !ok || got != want {
			return false
		}
	}
	return true
}

// MemoryBackend is where a restored machine's memory comes from.
type MemoryBackend string

// The memory backends.
const (
	MemoryFile MemoryBackend = "file" // Mapped from the snapshot's file, which machines share as long as they don't write to a page.
	MemoryUFFD MemoryBackend = "uffd" // Page by page, by a helper.
)

// RestoreOptions are the options of Runtime.Restore and of forks. Nil, or the zero value, is the default.
type RestoreOptions struct {
	// Backend is where the memory comes from. Optional: the driver's default, a file.
	Backend MemoryBackend
	// Paused leaves the machine paused, once its agent has made it its own. One without an agent executes nothing before Resume.
	Paused bool
	// Hold leaves the machine paused, for Runtime.Claim to hand it out: its agent has given it randomness and ids of its own, and what was started in it stands until then.
	Hold bool
	// Network is in place of the snapshot's: its policy, ports and limits. It can't add or take away the interface. Optional: the snapshot's without Publish, since a port can only be
	// one machine's.
	Network *Network
	// Labels are the machine's. Optional: those of the machine that the snapshot is of.
	Labels map[string]string
	// Hostname of the guest. Optional: the machine's name, with '-' for what a host name can't have.
	Hostname string
	// Env and Secrets are set in the guest before it goes on, beside those that it has. Their names and sizes are as for guest.SetEnv and guest.SetSecret.
	Env, Secrets map[string]string
	// AgentTimeout is how long the guest's agent may take to make the machine its own, at most 15 minutes. Optional: a minute.
	AgentTimeout time.Duration
	// Parallel is how many machines a fork restores at a time. Optional: 8.
	Parallel int
}

// Validate says whether the options make sense by themselves: nil, or a *[FieldError].
func (o *RestoreOptions) Validate() error {
	if !slices.Contains([]MemoryBackend{"", MemoryFile, MemoryUFFD}, o.Backend) {
		return &FieldError{Field: "RestoreOptions.Backend", Value: o.Backend, Reason: `must be "file" or "uffd"`}
	}
	if o.AgentTimeout < 0 || o.AgentTimeout > maxRenewal {
		return &FieldError{Field: "RestoreOptions.AgentTimeout", Value: o.AgentTimeout, Reason: fmt.Sprintf("must be 0 to %v", maxRenewal)}
	}
	if o.Parallel < 0 {
		return &FieldError{Field: "RestoreOptions.Parallel", Value: o.Parallel, Reason: "must not be negative"}
	}
	if o.Hostname != "" && !wire.ValidHostname(o.Hostname) {
		return &FieldError{Field: "RestoreOptions.Hostname", Value: o.Hostname, Reason: hostnameRule}
	}
	if bad := checkLabels("RestoreOptions.Labels", o.Labels); bad != nil {
		return bad
	}
	if bad := checkKept("RestoreOptions", o.Env, o.Secrets); bad != nil {
		return bad
	}
	if o.Network == nil {
		return nil
	}
	spec := Spec{Network: o.Network, Diskless: true}
	return spec.Validate()
}

// maxRenewal is less than what stands in a snapshot stands for by itself.
const maxRenewal = 15 * time.Minute

const hostnameRule = "must be 1 to 64 of a–z, A–Z, 0–9, '.' and '-', and not begin or end with the last two"

// ValidateSnapshotName says whether a reference can be a snapshot's name, "machine/snapshot": nil, or a *[FieldError].
func ValidateSnapshotName(ref string) error {
	machine, snapshot, ok := strings.Cut(ref, "/")
	if !ok || ValidateName(machine) != nil || ValidateName(snapshot) != nil {
		return &FieldError{Field: "snapshot", Value: ref, Reason: "must be machine/snapshot, each as a machine's name"}
	}
	return nil
}

// Snapshot writes down what a running or paused machine is: its memory, devices and own disk. A running one stands meanwhile and goes on, also when the snapshot fails, which then leaves
// nothing. Its name is that of the machine, now, and the given one: "machine/name".
func (v *VM) Snapshot(ctx context.Context, name string, options *SnapshotOptions) (SnapshotInfo, error) {
	o := value(options)
	snapshotter, ok := v.driver.(Snapshotter)
	if !ok {
		return SnapshotInfo{}, opError("snapshot", v.uid, ErrUnsupported)
	}
	if err := ValidateName(name); err != nil {
		return SnapshotInfo{}, opError("snapshot", v.uid, err)
	}
	if err := o.Validate(); err != nil {
		return SnapshotInfo{}, opError("snapshot", v.uid, err)
	}
	info, err := snapshotter.Snapshot(ctx, v.uid, name, o)
	return info, opError("snapshot", v.uid, err)
}

// Snapshots returns the snapshots that the filter chooses, sorted by name.
func (r *Runtime) Snapshots(ctx context.Context, filter *SnapshotFilter) ([]SnapshotInfo, error) {
	snapshotter, ok := r.driver.(Snapshotter)
	if !ok {
		return nil, opError("list snapshots", "", ErrUnsupported)
	}
	infos, err := snapshotter.Snapshots(ctx)
	if err != nil {
		return nil, opError("list snapshots", "", err)
	}
	return slices.DeleteFunc(infos, func(info SnapshotInfo) bool { return !filter.Match(&info) }), nil
}

// onSnapshot calls a function with the uid of the snapshot that a reference means: "machine/snapshot", or a uid.
func (r *Runtime) onSnapshot(ctx context.Context, op, ref string, do func(s Snapshotter, uid string) error) error {
	snapshotter, ok := r.driver.(Snapshotter)
	if !ok {
		return opError(op, ref, ErrUnsupported)
	}
	uid, err := snapshotter.ResolveSnapshot(ctx, ref)
	if err == nil {
		err = do(snapshotter, uid)
	}
	return opError(op, ref, err)
}

// Snapshot says what a snapshot is. The reference is its name, "machine/snapshot", or its uid; [ErrNotFound] when there is none.
func (r *Runtime) Snapshot(ctx context.Context, ref string) (info SnapshotInfo, err error) {
	err = r.onSnapshot(ctx, "find snapshot", ref, func(s Snapshotter, uid string) error {
		info, err = s.SnapshotInfo(ctx, uid)
		return err
	})
	return info, err
}

// DeleteSnapshot removes a snapshot. [ErrBusy] names the diff that is over it, or the machine that runs from it.
func (r *Runtime) DeleteSnapshot(ctx context.Context, ref string) error {
	return r.onSnapshot(ctx, "delete snapshot", ref, func(s Snapshotter, uid string) error { return s.DeleteSnapshot(ctx, uid) })
}

// VerifySnapshot reads all files of a snapshot, and of those that it is over, and says whether they are what was written: else [ErrIncompatible] names the file.
func (r *Runtime) VerifySnapshot(ctx context.Context, ref string) error {
	return r.onSnapshot(ctx, "verify snapshot", ref, func(s Snapshotter, uid string) error { return s.VerifySnapshot(ctx, uid) })
}

// FlattenSnapshot makes a diff a full snapshot, which needs its parent no more. A full one is left as it is.
func (r *Runtime) FlattenSnapshot(ctx context.Context, ref string) error {
	return r.onSnapshot(ctx, "flatten snapshot", ref, func(s Snapshotter, uid string) error { return s.FlattenSnapshot(ctx, uid) })
}

// Restore makes a machine that goes on where a snapshot was taken. It has a name, a slot and a disk of its own. Before Restore returns its agent has made it its own, and the Evidence says
// what that did: clock, randomness, machine-id, hostname, generation. When Restore returns an error nothing is left of the machine. [ErrIncompatible] says what of the host does not fit, before
// anything is started.
func (r *Runtime) Restore(ctx context.Context, snapshot, name string, options *RestoreOptions) (vm *VM, evidence Evidence, err error) {
	o := value(options)
	if err := ValidateName(name); err != nil {
		return nil, nil, opError("restore", snapshot, err)
	}
	if err := o.Validate(); err != nil {
		return nil, nil, opError("restore", snapshot, err)
	}
	err = r.onSnapshot(ctx, "restore", snapshot, func(s Snapshotter, uid string) error {
		restored, made, err := s.Restore(ctx, uid, name, o)
		if err == nil {
			vm = &VM{driver: r.driver, uid: restored}
		}
		evidence = made
		return err
	})
	return vm, evidence, err
}

// Forked is what became of one name of a fork.
type Forked struct {
	Name     string
	VM       *VM // Nil where Err is not.
	Evidence Evidence
	Err      error
}

// defaultParallel is how many machines a fork restores at a time.
const defaultParallel = 8

// Fork restores a snapshot under each of the names. The machines that could be made stay, whatever became of the others: the result has each name in its place. The error is of what kept
// it from beginning, and of a name that is there twice.
func (r *Runtime) Fork(ctx context.Context, snapshot string, names []string, options *RestoreOptions) ([]Forked, error) {
	o := value(options)
	if err := validateFork(names, &o); err != nil {
		return nil, opError("fork", snapshot, err)
	}
	var release func()
	if err := r.onSnapshot(ctx, "fork", snapshot, func(s Snapshotter, uid string) (err error) {
		snapshot = uid // by whatever name it goes meanwhile
		release, err = s.HoldSnapshot(ctx, uid)
		return err
	}); err != nil {
		return nil, err
	}
	defer release()
	forked := make([]Forked, len(names))
	parallel := defaultParallel
	if o.Parallel > 0 {
		parallel = o.Parallel
	}
	places := make(chan struct{}, parallel)
	var working sync.WaitGroup
	for i, name := range names {
		places <- struct{}{}
		working.Go(func() {
			defer func() { <-places }()
			f := Forked{Name: name}
			f.VM, f.Evidence, f.Err = r.Restore(ctx, snapshot, name, &o)
			forked[i] = f
		})
	}
	working.Wait()
	return forked, nil
}

func validateFork(names []string, o *RestoreOptions) error {
	if err := o.Validate(); err != nil {
		return err
	}
	if o.Network != nil && len(o.Network.Publish) > 0 && len(names) > 1 {
		return &FieldError{Field: "RestoreOptions.Network.Publish", Value: o.Network.Publish, Reason: "must be empty for more than one machine"}
	}
	seen := map[string]bool{}
	for _, name := range names {
		if err := ValidateName(name); err != nil {
			return err
		}
		if seen[name] {
			return &FieldError{Field: "names", Value: name, Reason: "must not be there twice"}
		}
		seen[name] = true
	}
	return nil
}

// Fork makes machines that go on where this one is, by a snapshot that goes with the last of them. The machine itself goes on.
func (v *VM) Fork(ctx context.Context, names []string, options *RestoreOptions) ([]Forked, error) {
	o := value(options)
	if err := validateFork(names, &o); err != nil {
		return nil, opError("fork", v.uid, err)
	}
	name := fmt.Sprintf("fork-%x", time.Now().UnixNano())
	info, err := v.Snapshot(ctx, name, &SnapshotOptions{Ephemeral: true})
	if err != nil {
		return nil, opError("fork", v.uid, err)
	}
	r := New(v.driver)
	forked, err := r.Fork(ctx, info.UID, names, options)
	deleted := r.DeleteSnapshot(context.WithoutCancel(ctx), info.UID) // where no machine runs from it any more, nobody else takes it away
	if err == nil && !errors.Is(deleted, ErrBusy) && !errors.Is(deleted, ErrNotFound) {
		err = deleted
	}
	return forked, err
}
