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
	SnapshotType SnapshotType `json:"snapshot_type,omitempty"` // Optional: Full.
	SnapshotPath string       `json:"snapshot_path"`           // Of the devices' state.
	MemFilePath  string       `json:"mem_file_path"`           // Of the memory.
}

// SnapshotLoad says what a fresh VMM becomes.
type SnapshotLoad struct {
	SnapshotPath        string            `json:"snapshot_path"`
	MemFilePath         string            `json:"mem_file_path,omitempty"` // Deprecated by Firecracker: say MemBackend.
	MemBackend          *MemBackend       `json:"mem_backend,omitempty"`
	EnableDiffSnapshots bool              `json:"enable_diff_snapshots,omitempty"` // From 1.13 on deprecated by Firecracker: say TrackDirtyPages.
	TrackDirtyPages     bool              `json:"track_dirty_pages,omitempty" since:"1.13.0"`
	ResumeVM            bool              `json:"resume_vm,omitempty"`
	NetworkOverrides    []NetworkOverride `json:"network_overrides,omitempty" since:"1.12.0"`
	VsockOverride       *VsockOverride    `json:"vsock_override,omitempty" since:"1.16.0"`
	ClockRealtime       bool              `json:"clock_realtime,omitempty" since:"1.14.4 1.15.1"` // kvm-clock goes on by the time since the snapshot. x86_64 only.
}

// MemBackend is where the memory comes from.
type MemBackend struct {
	BackendType string `json:"backend_type"` // "File", which is mapped privately, or "Uffd", the socket of a page-fault handler.
	BackendPath string `json:"backend_path"`
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

// CreateSnapshot writes a snapshot of a paused VM.
func (c *Client) CreateSnapshot(ctx context.Context, s SnapshotCreate) error {
	return c.call(ctx, "PUT", "/snapshot/create", s, nil)
}

// LoadSnapshot makes a fresh VMM what the snapshot holds. Log and metrics may be set before it, nothing else.
func (c *Client) LoadSnapshot(ctx context.Context, s SnapshotLoad) error {
	return c.call(ctx, "PUT", "/snapshot/load", s, nil)
}
