package api

import "context"

// SnapshotType is how much of the memory a snapshot holds.
type SnapshotType string

// The types of snapshots.
const (
	SnapshotFull SnapshotType = "Full"
	SnapshotDiff SnapshotType = "Diff" // The pages that were written since the snapshot before.
)

// SnapshotCreate says where a snapshot goes.
type SnapshotCreate struct {
	SnapshotType SnapshotType `json:"snapshot_type,omitempty"` // Optional: Full. Diff needs tracking of dirty pages, or 1.13 ([DiffWithoutTracking]).
	SnapshotPath string       `json:"snapshot_path"`           // Of the devices' state. It is written over.
	MemFilePath  string       `json:"mem_file_path"`           // Of the memory, and as large; of a diff what was not written is a hole.
}

// SnapshotLoad says what a fresh VMM becomes. Exactly one of MemFilePath and MemBackend is set. A snapshot holds no log, metrics, console, or data of MMDS.
type SnapshotLoad struct {
	SnapshotPath        string            `json:"snapshot_path"`
	MemFilePath         string            `json:"mem_file_path,omitempty"` // Deprecated by Firecracker: say MemBackend.
	MemBackend          *MemBackend       `json:"mem_backend,omitempty"`
	EnableDiffSnapshots bool              `json:"enable_diff_snapshots,omitempty"`            // What TrackDirtyPages was before 1.13, deprecated by Firecracker since.
	TrackDirtyPages     bool              `json:"track_dirty_pages,omitempty" since:"1.13.0"` // For diff snapshots of what is restored.
	ResumeVM            bool              `json:"resume_vm,omitempty"`                        // Else it is paused.
	NetworkOverrides    []NetworkOverride `json:"network_overrides,omitempty" since:"1.12.0"`
	VsockOverride       *VsockOverride    `json:"vsock_override,omitempty" since:"1.16.0"`
	ClockRealtime       bool              `json:"clock_realtime,omitempty" since:"1.14.4 1.15.1"` // kvm-clock goes on by the time since the snapshot. x86_64, and snapshots of hosts from Linux 5.16.
}

// MemBackend is where the memory comes from.
type MemBackend struct {
	BackendType string `json:"backend_type"` // "File", which is mapped privately, so must stay as it is; or "Uffd", by a page-fault handler.
	BackendPath string `json:"backend_path"` // Of the file, or of the handler's socket. Memory of huge pages needs a handler.
}

// NetworkOverride gives a network device another TAP.
type NetworkOverride struct {
	IfaceID     string `json:"iface_id"`
	HostDevName string `json:"host_dev_name"`
}

// VsockOverride gives the socket device another path.
type VsockOverride struct {
	UDSPath string `json:"uds_path"`
}

// CreateSnapshot writes a snapshot of a paused VM, which stays paused. It cuts all connections of its vsock.
func (c *Client) CreateSnapshot(ctx context.Context, s SnapshotCreate) error {
	return c.call(ctx, "PUT", "/snapshot/create", s, nil)
}

// LoadSnapshot makes a fresh VMM what the snapshot holds. Log, metrics and console may be set before it, nothing else. A VMM that refused a snapshot may end.
func (c *Client) LoadSnapshot(ctx context.Context, s SnapshotLoad) error {
	return c.call(ctx, "PUT", "/snapshot/load", s, nil)
}
