package api

import "context"

// Logger says where the VMM's log goes, and what of it. Zero fields stay.
type Logger struct {
	LogPath       string `json:"log_path,omitempty"`        // A file or FIFO, which before 1.14 must exist.
	Level         string `json:"level,omitempty"`           // "Off", "Trace", "Debug", "Info", the default, "Warn" or "Error".
	ShowLevel     bool   `json:"show_level,omitempty"`      // Lines tell their level.
	ShowLogOrigin bool   `json:"show_log_origin,omitempty"` // Lines tell the source file and line.
	Module        string `json:"module,omitempty"`          // Only messages of this module.
}

// Metrics says where the VMM's metrics go: a line of JSON a minute, and at each [FlushMetrics]. It can be set once.
type Metrics struct {
	MetricsPath string `json:"metrics_path"` // A file or FIFO, which before 1.14 must exist.
}

// Serial says where the guest's console goes, since 1.14.
type Serial struct {
	SerialOutPath string       `json:"serial_out_path,omitempty"`             // A file or FIFO; it is made where it is missing. Empty is standard output.
	RateLimiter   *TokenBucket `json:"rate_limiter,omitempty" since:"1.16.0"` // Of bytes; what is beyond is dropped.
}

// Entropy is the random device.
type Entropy struct {
	RateLimiter *RateLimiter `json:"rate_limiter,omitempty"` // Of what the guest takes; Firecracker has no other bound.
}

// PutLogger sets the log, before the start.
func (c *Client) PutLogger(ctx context.Context, l Logger) error {
	return c.call(ctx, "PUT", "/logger", l, nil)
}

// PutMetrics sets the metrics, before the start.
func (c *Client) PutMetrics(ctx context.Context, m Metrics) error {
	return c.call(ctx, "PUT", "/metrics", m, nil)
}

// PutSerial sets the console, before the start, since 1.14.
func (c *Client) PutSerial(ctx context.Context, s Serial) error {
	return c.call(ctx, "PUT", "/serial", s, nil)
}

// PutEntropy sets the random device, before the start.
func (c *Client) PutEntropy(ctx context.Context, e Entropy) error {
	return c.call(ctx, "PUT", "/entropy", e, nil)
}
