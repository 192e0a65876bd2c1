package api

import "context"

// MemoryHotplug is a device by which memory is added to and taken from a started VM, since 1.14.
type MemoryHotplug struct {
	TotalSizeMiB int `json:"total_size_mib"`           // The most that can be added, in MiB: a multiple of the slot size.
	SlotSizeMiB  int `json:"slot_size_mib,omitempty"`  // What the host maps at a time, in MiB: 128, the default, or more, a multiple of the block size.
	BlockSizeMiB int `json:"block_size_mib,omitempty"` // What the guest plugs at a time, in MiB: 2, the default, or more, a power of two.
}

// MemoryHotplugPatch asks for memory.
type MemoryHotplugPatch struct {
	RequestedSizeMiB int `json:"requested_size_mib"` // MiB beside those of MachineConfig, up to the total, a multiple of the block size.
}

// MemoryHotplugStatus is how much there is, in MiB.
type MemoryHotplugStatus struct {
	TotalSizeMiB     int `json:"total_size_mib"`
	SlotSizeMiB      int `json:"slot_size_mib"`
	BlockSizeMiB     int `json:"block_size_mib"`
	PluggedSizeMiB   int `json:"plugged_size_mib"`   // What the guest has plugged.
	RequestedSizeMiB int `json:"requested_size_mib"` // What it was asked to.
}

// PutMemoryHotplug sets the device, before the start.
func (c *Client) PutMemoryHotplug(ctx context.Context, m MemoryHotplug) error {
	return c.call(ctx, "PUT", "/hotplug/memory", m, nil)
}

// PatchMemoryHotplug asks for memory, after the start.
func (c *Client) PatchMemoryHotplug(ctx context.Context, m MemoryHotplugPatch) error {
	return c.call(ctx, "PATCH", "/hotplug/memory", m, nil)
}

// GetMemoryHotplug says how much there is, after the start.
func (c *Client) GetMemoryHotplug(ctx context.Context) (s MemoryHotplugStatus, err error) {
	return s, c.call(ctx, "GET", "/hotplug/memory", nil, &s)
}
