package microvm

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"io"
	"time"
)

// ExportOptions are the options of Runtime.ExportSnapshot. Nil, or the zero value, is the default.
type ExportOptions struct {
	// Key signs the export. Optional: one without a signature is only imported by who asks for that.
	Key ed25519.PrivateKey
}

// Validate says whether the options make sense: nil, or a *[FieldError].
func (o *ExportOptions) Validate() error {
	if o.Key != nil && len(o.Key) != ed25519.PrivateKeySize {
		return &FieldError{Field: "ExportOptions.Key", Value: fmt.Sprint(len(o.Key), " bytes"), Reason: fmt.Sprintf("must be an ed25519 key of %d bytes", ed25519.PrivateKeySize)}
	}
	return nil
}

// ImportOptions are the options of Runtime.ImportSnapshot. One of the fields must be set.
type ImportOptions struct {
	// Trusted are the keys of whom exports are taken from.
	Trusted []ed25519.PublicKey
	// Unsigned takes an export also when nobody has signed it, or somebody else. A snapshot is input to the VMM, and decides what its machines are: take none from who is not trusted.
	Unsigned bool
}

// Validate says whether the options make sense: nil, or a *[FieldError].
func (o *ImportOptions) Validate() error {
	for i, key := range o.Trusted {
		if len(key) != ed25519.PublicKeySize {
			return &FieldError{Field: fmt.Sprintf("ImportOptions.Trusted[%d]", i), Value: fmt.Sprint(len(key), " bytes"), Reason: fmt.Sprintf("must be an ed25519 key of %d bytes", ed25519.PublicKeySize)}
		}
	}
	if len(o.Trusted) == 0 && !o.Unsigned {
		return &FieldError{Field: "ImportOptions.Trusted", Value: o.Trusted, Reason: "must have a key, unless Unsigned is set: else no export can be taken"}
	}
	return nil
}

// PruneOptions are the options of Runtime.PruneSnapshots. A snapshot goes when one of the rules says so. Nil, or the zero value, lets all stay.
type PruneOptions struct {
	OlderThan time.Duration // Snapshots that were taken longer ago go. Optional.
	Keep      int           // How many of each machine's stay, the newest. Optional: all.
	MaxMiB    int           // How much of the host's disk, in MiB, all snapshots may have: the oldest go until that is so. Optional.
	DryRun    bool          // Delete nothing: tell what would go.
}

// maxDiskMiB bounds what a host's disk may have, in MiB.
const maxDiskMiB = 1 << 40

// Validate says whether the options make sense: nil, or a *[FieldError].
func (o *PruneOptions) Validate() error {
	switch {
	case o.OlderThan < 0:
		return &FieldError{Field: "PruneOptions.OlderThan", Value: o.OlderThan, Reason: "must not be negative"}
	case o.Keep < 0:
		return &FieldError{Field: "PruneOptions.Keep", Value: o.Keep, Reason: "must not be negative"}
	case o.MaxMiB < 0 || int64(o.MaxMiB) > maxDiskMiB: // more is, in bytes, less than nothing, or little
		return &FieldError{Field: "PruneOptions.MaxMiB", Value: o.MaxMiB, Reason: fmt.Sprintf("must be 0 to %d", int64(maxDiskMiB))}
	}
	return nil
}

// ExportSnapshot writes all that a restore of a snapshot needs, on another host too: the snapshot, a diff with what it is over, and what its machine boots from. Holes take no space, and the rest is
// compressed. It has what was in the guest's memory, secrets too. When it returns an error what was written is no export. A Write that blocks is not interrupted when ctx ends.
func (r *Runtime) ExportSnapshot(ctx context.Context, ref string, w io.Writer, options *ExportOptions) error {
	o := value(options)
	exporter, ok := r.driver.(Exporter)
	if !ok {
		return opError("export snapshot", ref, ErrUnsupported)
	}
	if err := o.Validate(); err != nil {
		return opError("export snapshot", ref, err)
	}
	return r.onSnapshot(ctx, "export snapshot", ref, func(_ Snapshotter, uid string) error { return exporter.ExportSnapshot(ctx, uid, w, o) })
}

// ImportSnapshot makes a snapshot of what ExportSnapshot has written, with the whole of r. It is a full one, whatever was exported, and has the given name, "machine/snapshot", or, where that is empty, the
// one that it had. [ErrInvalid] says what is wrong with the export, or that nobody who is trusted has signed it, [ErrExists] that the name is taken. When ImportSnapshot returns an error nothing is left. Whether
// it can be restored here SnapshotInfo.Problem says. A Read that blocks is not interrupted when ctx ends.
func (r *Runtime) ImportSnapshot(ctx context.Context, name string, from io.Reader, options *ImportOptions) (SnapshotInfo, error) {
	o := value(options)
	exporter, ok := r.driver.(Exporter)
	if !ok {
		return SnapshotInfo{}, opError("import snapshot", name, ErrUnsupported)
	}
	err := o.Validate()
	if err == nil && name != "" {
		err = ValidateSnapshotName(name)
	}
	if err != nil {
		return SnapshotInfo{}, opError("import snapshot", name, err)
	}
	info, err := exporter.ImportSnapshot(ctx, name, from, o)
	return info, opError("import snapshot", name, err)
}

// PruneSnapshots deletes the snapshots that the options do not let stay, unless something that stays needs them: a diff that is over it, a machine that runs from it. Ephemeral ones are
// left alone, and so are damaged ones, of which the error tells. It returns what it has deleted, also with an error, and how many bytes of the host's disk that gives back.
func (r *Runtime) PruneSnapshots(ctx context.Context, options *PruneOptions) (deleted []SnapshotInfo, freed int64, err error) {
	o := value(options)
	pruner, ok := r.driver.(Pruner)
	if !ok {
		return nil, 0, opError("prune snapshots", "", ErrUnsupported)
	}
	if err := o.Validate(); err != nil {
		return nil, 0, opError("prune snapshots", "", err)
	}
	deleted, freed, err = pruner.PruneSnapshots(ctx, o)
	return deleted, freed, opError("prune snapshots", "", err)
}
