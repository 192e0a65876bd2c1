package api

import (
	"context"
	"net/url"
)

// Drive is a block device: a file (PathOnHost), or what a back end serves (Socket). Devices get their names in the order of the list: vda, vdb; the root device comes first.
type Drive struct {
	DriveID      string       `json:"drive_id"`               // Letters, digits and underscores, at least one.
	PathOnHost   string       `json:"path_on_host,omitempty"` // A raw image or a block device, as the VMM sees it. What is beyond the last whole sector of 512 bytes is lost.
	IsRootDevice bool         `json:"is_root_device"`         // At most one; root=, and ro or rw, are added to the kernel's arguments.
	IsReadOnly   bool         `json:"is_read_only,omitempty"` // The file is opened so too. Not with Socket.
	PartUUID     string       `json:"partuuid,omitempty"`     // Of the partition that is the root, for a root device.
	CacheType    string       `json:"cache_type,omitempty"`   // "Unsafe", the default: flushes of the guest are not offered; "Writeback": they sync the file.
	IOEngine     string       `json:"io_engine,omitempty"`    // "Sync", the default, or "Async", by io_uring. Not with Socket.
	RateLimiter  *RateLimiter `json:"rate_limiter,omitempty"` // Not with Socket.
	Socket       string       `json:"socket,omitempty"`       // Of a vhost-user-blk back end.
}

// DrivePatch changes a device of a started VM. Zero fields stay.
type DrivePatch struct {
	DriveID     string       `json:"drive_id"`
	PathOnHost  string       `json:"path_on_host,omitempty"` // Also the same one, whose size has changed: the guest is told.
	RateLimiter *RateLimiter `json:"rate_limiter,omitempty"` // Nil buckets stay; one of size 0 lifts the bound.
}

// PutDrive adds or replaces a block device before the start, and with PCI, since 1.16, adds one to a started VM, whose guest must rescan its bus.
func (c *Client) PutDrive(ctx context.Context, d Drive) error {
	return c.call(ctx, "PUT", "/drives/"+url.PathEscape(d.DriveID), d, nil)
}

// PatchDrive changes a device of a started VM.
func (c *Client) PatchDrive(ctx context.Context, d DrivePatch) error {
	return c.call(ctx, "PATCH", "/drives/"+url.PathEscape(d.DriveID), d, nil)
}

// DeleteDrive takes a device from a started VM with PCI, since 1.16 ([DeviceHotplug]). The guest must have let it go.
func (c *Client) DeleteDrive(ctx context.Context, id string) error {
	return c.call(ctx, "DELETE", "/drives/"+url.PathEscape(id), nil, nil)
}

// Pmem is a persistent-memory device, since 1.14. The guest sees the image as memory: pmem0, pmem1 in the order of the list.
type Pmem struct {
	ID          string       `json:"id"`                                    // Letters, digits and underscores.
	PathOnHost  string       `json:"path_on_host"`                          // A file that is not empty. What is beyond it up to 2 MiB the guest sees too, and it is lost.
	RootDevice  bool         `json:"root_device,omitempty"`                 // At most one, drives included.
	ReadOnly    bool         `json:"read_only,omitempty"`                   // The file is mapped so.
	RateLimiter *RateLimiter `json:"rate_limiter,omitempty" since:"1.16.0"` // Of the guest's flushes.
}

// PmemPatch changes a device of a started VM, since 1.16.
type PmemPatch struct {
	ID          string       `json:"id"`
	RateLimiter *RateLimiter `json:"rate_limiter,omitempty"`
}

// PutPmem adds or replaces a persistent-memory device before the start, since 1.14.
func (c *Client) PutPmem(ctx context.Context, p Pmem) error {
	return c.call(ctx, "PUT", "/pmem/"+url.PathEscape(p.ID), p, nil)
}

// PatchPmem changes a device of a started VM, since 1.16.
func (c *Client) PatchPmem(ctx context.Context, p PmemPatch) error {
	return c.call(ctx, "PATCH", "/pmem/"+url.PathEscape(p.ID), p, nil)
}

// DeletePmem takes a device from a started VM with PCI, since 1.16 ([DeviceHotplug]).
func (c *Client) DeletePmem(ctx context.Context, id string) error {
	return c.call(ctx, "DELETE", "/pmem/"+url.PathEscape(id), nil, nil)
}
