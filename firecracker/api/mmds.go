package api

import "context"

// MMDSConfig sets up the metadata service that guests reach at a link-local address.
type MMDSConfig struct {
	NetworkInterfaces []string `json:"network_interfaces"`                   // Ids of those that reach it: at least one, and put before.
	Version           string   `json:"version,omitempty"`                    // "V1", the default, or "V2", with session tokens.
	IPv4Address       string   `json:"ipv4_address,omitempty"`               // Link-local. Optional: 169.254.169.254.
	IMDSCompat        bool     `json:"imds_compat,omitempty" since:"1.13.0"` // Answers are plain text whatever the guest accepts, as those of EC2.
}

// PutMMDSConfig sets up the metadata service, before the start.
func (c *Client) PutMMDSConfig(ctx context.Context, m MMDSConfig) error {
	return c.call(ctx, "PUT", "/mmds/config", m, nil)
}

// PutMMDS replaces the metadata by what encoding/json makes of data: an object of at most 51,200 bytes, or the VMM's own limit.
func (c *Client) PutMMDS(ctx context.Context, data any) error {
	return c.call(ctx, "PUT", "/mmds", data, nil)
}

// PatchMMDS merges data into the metadata (RFC 7396).
func (c *Client) PatchMMDS(ctx context.Context, data any) error {
	return c.call(ctx, "PATCH", "/mmds", data, nil)
}

// GetMMDS fills data, a pointer, from the metadata: null before any were set, or {}, by the version.
func (c *Client) GetMMDS(ctx context.Context, data any) error {
	return c.call(ctx, "GET", "/mmds", nil, data)
}
