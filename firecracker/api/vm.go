package api

import "context"

// VMState is what PATCH /vm asks for.
type VMState string

// The states that a started VM can be asked to take.
const (
	VMPaused  VMState = "Paused"
	VMResumed VMState = "Resumed"
)

// ActionType is what PUT /actions asks for.
type ActionType string

// The actions of all versions.
const (
	InstanceStart  ActionType = "InstanceStart"
	FlushMetrics   ActionType = "FlushMetrics"
	SendCtrlAltDel ActionType = "SendCtrlAltDel" // x86_64 only.
)

// Instance is the answer of GET /.
type Instance struct {
	AppName string `json:"app_name"`
	ID      string `json:"id"`
	State   string `json:"state"` // "Not started", "Running" or "Paused".
	Version string `json:"vmm_version"`
}

// GetInstance says what the VMM is and does.
func (c *Client) GetInstance(ctx context.Context) (Instance, error) {
	var i Instance
	err := c.call(ctx, "GET", "/", nil, &i)
	return i, err
}

// PatchVM pauses or resumes a started VM.
func (c *Client) PatchVM(ctx context.Context, state VMState) error {
	return c.call(ctx, "PATCH", "/vm", map[string]VMState{"state": state}, nil)
}

// Action asks for an action.
func (c *Client) Action(ctx context.Context, action ActionType) error {
	return c.call(ctx, "PUT", "/actions", map[string]ActionType{"action_type": action}, nil)
}

// GetVMConfig returns the whole configuration of the VM, in the form of a configuration file.
func (c *Client) GetVMConfig(ctx context.Context) (ConfigFile, error) {
	var f ConfigFile
	err := c.call(ctx, "GET", "/vm/config", nil, &f)
	return f, err
}

// GetVersion returns the VMM's version.
func (c *Client) GetVersion(ctx context.Context) (Version, error) {
	var v struct {
		Version string `json:"firecracker_version"`
	}
	if err := c.call(ctx, "GET", "/version", nil, &v); err != nil {
		return Version{}, err
	}
	return ParseVersion(v.Version)
}
