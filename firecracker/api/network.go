package api

import (
	"context"
	"net/url"
)

// NetworkInterface is a network device on a TAP of the host.
type NetworkInterface struct {
	IfaceID       string       `json:"iface_id"`            // Letters, digits and underscores.
	HostDevName   string       `json:"host_dev_name"`       // The TAP, of at most 15 bytes, in the VMM's network namespace; it is made where it is missing and the VMM may.
	GuestMAC      string       `json:"guest_mac,omitempty"` // "02:00:…", one for each device. Optional: the guest chooses.
	RxRateLimiter *RateLimiter `json:"rx_rate_limiter,omitempty"`
	TxRateLimiter *RateLimiter `json:"tx_rate_limiter,omitempty"`
	MTU           int          `json:"mtu,omitempty" since:"1.16.0"` // Bytes, 68 to 65,535, told to the guest. Zero tells nothing.
}

// NetworkInterfacePatch changes a device of a started VM. Nil limiters and buckets stay; a bucket of size 0 lifts the bound.
type NetworkInterfacePatch struct {
	IfaceID       string       `json:"iface_id"`
	RxRateLimiter *RateLimiter `json:"rx_rate_limiter,omitempty"`
	TxRateLimiter *RateLimiter `json:"tx_rate_limiter,omitempty"`
}

// PutNetworkInterface adds or replaces a network device before the start, and with PCI, since 1.16, adds one to a started VM, whose guest must rescan its bus.
func (c *Client) PutNetworkInterface(ctx context.Context, n NetworkInterface) error {
	return c.call(ctx, "PUT", "/network-interfaces/"+url.PathEscape(n.IfaceID), n, nil)
}

// PatchNetworkInterface changes the limits of a device of a started VM.
func (c *Client) PatchNetworkInterface(ctx context.Context, n NetworkInterfacePatch) error {
	return c.call(ctx, "PATCH", "/network-interfaces/"+url.PathEscape(n.IfaceID), n, nil)
}

// DeleteNetworkInterface takes a device from a started VM with PCI, since 1.16 ([DeviceHotplug]).
func (c *Client) DeleteNetworkInterface(ctx context.Context, id string) error {
	return c.call(ctx, "DELETE", "/network-interfaces/"+url.PathEscape(id), nil, nil)
}

// Vsock is the socket device. Host processes connect to UDSPath and say "CONNECT port"; the guest's connections to the host's port n arrive at UDSPath_n.
type Vsock struct {
	GuestCID uint32 `json:"guest_cid"`          // 3 or more. Only the guest sees it: machines may have the same.
	UDSPath  string `json:"uds_path"`           // The VMM makes it: a file that is there is an error at the start. At most 107 bytes, what is added for ports included.
	VsockID  string `json:"vsock_id,omitempty"` // Deprecated by Firecracker: of no effect.
}

// PutVsock sets the socket device, before the start.
func (c *Client) PutVsock(ctx context.Context, v Vsock) error {
	return c.call(ctx, "PUT", "/vsock", v, nil)
}
