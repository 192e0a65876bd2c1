//go:build linux

package snapstore

import (
	"cmp"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/state"
	"github.com/tangle-network/microvm-runtime/internal/vmm"
)

// Version is the version of manifests that this package writes. It reads this and all older ones.
const Version = 1

// The files of a snapshot.
const (
	State  = "state"  // Of the devices, as Firecracker writes it.
	Memory = "memory" // Of the guest.
	Disk   = "disk"   // The machine's own, where it has one.

	flat       = "flat"       // A diff's whole memory.
	workingSet = "workingset" // Which pages of it machines ask for first. It is no part of the snapshot.
)

// Manifest is what is written down of a snapshot. It is never changed, but by Flatten.
type Manifest struct {
	UID     string               `json:"uid"`
	Name    string               `json:"name"` // "machine/snapshot". The link is what counts.
	Kind    microvm.SnapshotKind `json:"kind"`
	Parent  string               `json:"parent,omitempty"` // Uid, of a diff.
	Created time.Time            `json:"created"`

	Origin      string               `json:"origin,omitempty"` // Uid that it was taken under, where it was imported.
	Machine     string               `json:"machine"`          // Uid.
	Layout      int                  `json:"layout"`           // Of what a VMM sees: names of files, devices, addresses.
	Firecracker string               `json:"firecracker"`      // Version, such as "1.12.1".
	CPU         CPU                  `json:"cpu"`
	Spec        microvm.Spec         `json:"spec"` // Resolved.
	Image       *microvm.ImageConfig `json:"image,omitempty"`
	Agent       bool                 `json:"agent"`
	Unfrozen    string               `json:"unfrozen,omitempty"` // Why the workload did not stand; empty where it did, or there is no agent.
	Shared      state.Files          `json:"shared"`             // What the machine boots from: paths in the host's store.

	Files     map[string]File   `json:"files"` // By State, Memory, Disk.
	Labels    map[string]string `json:"labels,omitempty"`
	Ephemeral bool              `json:"ephemeral,omitempty"`
	Maker     *vmm.Identity     `json:"maker,omitempty"` // The process that made an ephemeral one, which may be about to restore it.
	Stood     time.Duration     `json:"stood,omitempty"`
	Copied    int64             `json:"copied,omitempty"`
}

// Token is what the guest's workload stands for, if it stands: the uid that the snapshot was taken under, wherever it is.
func (m *Manifest) Token() string { return cmp.Or(m.Origin, m.UID) }

// File is one file of a snapshot.
type File struct {
	Name   string `json:"name"`   // In the snapshot's directory.
	Size   int64  `json:"size"`   // Bytes.
	Data   int64  `json:"data"`   // Bytes on the disk when it was made: what isn't a hole.
	SHA256 string `json:"sha256"` // Of what isn't zeros: see hash. 64 hexadecimal digits.
}

// CPU is what a guest has seen of the host's.
type CPU struct {
	Vendor string   `json:"vendor"`
	Family string   `json:"family"`
	Model  string   `json:"model"`
	Name   string   `json:"name"`
	Flags  []string `json:"flags,omitempty"` // Sorted.
}
