package api

import "context"

// Balloon is the balloon device, by which the host takes memory back from the guest.
type Balloon struct {
	AmountMiB             int  `json:"amount_mib"`                                   // MiB that the guest is to give up, at most those it has.
	DeflateOnOOM          bool `json:"deflate_on_oom"`                               // The guest takes some back before it kills for want of memory.
	StatsPollingIntervalS int  `json:"stats_polling_interval_s,omitempty"`           // Seconds, up to 65,535. 0 is no statistics, and can't be changed after the start.
	FreePageHinting       bool `json:"free_page_hinting,omitempty" since:"1.14.0"`   // Allows runs that are begun by StartBalloonHinting.
	FreePageReporting     bool `json:"free_page_reporting,omitempty" since:"1.14.0"` // The guest gives back free pages by itself. A preview.
}

// BalloonPatch changes the size of a started VM's balloon.
type BalloonPatch struct {
	AmountMiB int `json:"amount_mib"` // MiB that the guest is to give up.
}

// BalloonStats is what the guest said last. Pages are of 4 KiB. What has to do with swap, memory, caches, scans and reclaims is in bytes, the rest are counts.
// What a guest does not say is 0.
type BalloonStats struct {
	TargetPages        int64 `json:"target_pages"`
	ActualPages        int64 `json:"actual_pages"`
	TargetMiB          int64 `json:"target_mib"`
	ActualMiB          int64 `json:"actual_mib"`
	SwapIn             int64 `json:"swap_in,omitempty"`
	SwapOut            int64 `json:"swap_out,omitempty"`
	MajorFaults        int64 `json:"major_faults,omitempty"`
	MinorFaults        int64 `json:"minor_faults,omitempty"`
	FreeMemory         int64 `json:"free_memory,omitempty"`
	TotalMemory        int64 `json:"total_memory,omitempty"`
	AvailableMemory    int64 `json:"available_memory,omitempty"`
	DiskCaches         int64 `json:"disk_caches,omitempty"`
	HugetlbAllocations int64 `json:"hugetlb_allocations,omitempty"`
	HugetlbFailures    int64 `json:"hugetlb_failures,omitempty"`
	OOMKill            int64 `json:"oom_kill,omitempty" since:"1.14.0"` // This and what follows: of guests from Linux 6.12.
	AllocStall         int64 `json:"alloc_stall,omitempty" since:"1.14.0"`
	AsyncScan          int64 `json:"async_scan,omitempty" since:"1.14.0"`
	DirectScan         int64 `json:"direct_scan,omitempty" since:"1.14.0"`
	AsyncReclaim       int64 `json:"async_reclaim,omitempty" since:"1.14.0"`
	DirectReclaim      int64 `json:"direct_reclaim,omitempty" since:"1.14.0"`
}

// BalloonStatsPatch changes how often the guest is asked.
type BalloonStatsPatch struct {
	StatsPollingIntervalS int `json:"stats_polling_interval_s"` // Seconds, 1 or more.
}

// BalloonHintingStart begins a run of free page hinting, since 1.14.
type BalloonHintingStart struct {
	AcknowledgeOnStop *bool `json:"acknowledge_on_stop,omitempty"` // Nil is true: the guest may use the hinted pages again when it is done.
}

// BalloonHintingStatus is how far a run is, since 1.14.
type BalloonHintingStatus struct {
	HostCmd  int  `json:"host_cmd"`            // The command that the host gave last.
	GuestCmd *int `json:"guest_cmd,omitempty"` // The one that the guest answered last; nil before its first answer.
}

// PutBalloon sets the balloon, before the start.
func (c *Client) PutBalloon(ctx context.Context, b Balloon) error {
	return c.call(ctx, "PUT", "/balloon", b, nil)
}

// PatchBalloon changes the balloon's size, after the start.
func (c *Client) PatchBalloon(ctx context.Context, b BalloonPatch) error {
	return c.call(ctx, "PATCH", "/balloon", b, nil)
}

// GetBalloon returns the balloon's configuration. A [Fault] when there is none.
func (c *Client) GetBalloon(ctx context.Context) (b Balloon, err error) {
	return b, c.call(ctx, "GET", "/balloon", nil, &b)
}

// GetBalloonStats returns what the guest said last, after the start. A [Fault] when there are no statistics.
func (c *Client) GetBalloonStats(ctx context.Context) (s BalloonStats, err error) {
	return s, c.call(ctx, "GET", "/balloon/statistics", nil, &s)
}

// PatchBalloonStats changes how often the guest is asked, after the start.
func (c *Client) PatchBalloonStats(ctx context.Context, s BalloonStatsPatch) error {
	return c.call(ctx, "PATCH", "/balloon/statistics", s, nil)
}

// StartBalloonHinting begins a run of free page hinting, after the start, since 1.14.
func (c *Client) StartBalloonHinting(ctx context.Context, s BalloonHintingStart) error {
	return c.call(ctx, "PATCH", "/balloon/hinting/start", s, nil)
}

// GetBalloonHinting says how far the run is, since 1.14.
func (c *Client) GetBalloonHinting(ctx context.Context) (s BalloonHintingStatus, err error) {
	return s, c.call(ctx, "GET", "/balloon/hinting/status", nil, &s)
}

// StopBalloonHinting ends the run, since 1.14 ([FreePageHinting]).
func (c *Client) StopBalloonHinting(ctx context.Context) error {
	return c.call(ctx, "PATCH", "/balloon/hinting/stop", struct{}{}, nil)
}
