package microvm

import "time"

// State is where a machine is in its life.
type State string

const (
	// StateCreating is a machine that is being made, or whose maker was interrupted.
	StateCreating State = "creating"
	// StateCreated has never been started.
	StateCreated State = "created"
	// StateRunning executes.
	StateRunning State = "running"
	// StatePaused has its memory and its VMM, but no vCPU executes.
	StatePaused State = "paused"
	// StateStopped is powered off; its disk stays, and Start boots it again.
	StateStopped State = "stopped"
	// StateDestroying is a machine that is being destroyed, or whose destroyer was interrupted: Destroy goes on.
	StateDestroying State = "destroying"
	// StateDamaged is a machine whose record can't be read; Info.Problem says why. Nothing of it is touched.
	StateDamaged State = "damaged"
)

// Info says what a machine is. It is plain data with a stable JSON form.
type Info struct {
	UID     string    `json:"uid"`
	Name    string    `json:"name"`
	State   State     `json:"state"`
	Spec    Spec      `json:"spec"`             // As resolved at Create.
	Created time.Time `json:"created"`          // When Create was called.
	Started time.Time `json:"started,omitzero"` // When the last Start was called.
	PID     int       `json:"pid,omitempty"`    // The VMM's, as the host sees it. 0 when there is none.
	Agent   bool      `json:"agent"`            // Whether a guest agent boots the machine.
	Jailed  bool      `json:"jailed"`           // Whether the VMM runs in a jail.
	// Image is what the maker of Spec.Image says about running it. Nil when Spec.Image is no name, but a path.
	Image *ImageConfig `json:"image,omitempty"`
	// Network is nil for a machine that has no network interface.
	Network *NetworkInfo `json:"network,omitempty"`
	Exit    *Exit        `json:"exit,omitempty"`    // How the last run ended. Nil before the first end, and while one runs.
	Copied  int64        `json:"copied,omitempty"`  // Bytes that were copied for its disk when it was made, since the file system can't share blocks (xfs and btrfs can).
	Held    bool         `json:"held,omitempty"`    // It waits to be claimed: see Runtime.Claim.
	Problem string       `json:"problem,omitempty"` // Why the machine is damaged.
	// Timeline are the steps of the last Start, in order of their beginning.
	Timeline []Mark `json:"timeline,omitempty"`
}

// Mark is one step of a time line.
type Mark struct {
	Name  string        `json:"name"`     // Such as "spawn", "vmm", "agent".
	Begin time.Duration `json:"begin_ns"` // Since the call of the verb.
	End   time.Duration `json:"end_ns"`   // Since the call of the verb.
}

// Filter chooses machines. Nil, or the zero value, chooses all.
type Filter struct {
	States []State           // Any of these. Optional.
	Labels map[string]string // All of these. Optional.
}

// Match says whether the filter chooses the machine.
func (f *Filter) Match(info *Info) bool {
	if f == nil {
		return true
	}
	found := len(f.States) == 0
	for _, state := range f.States {
		found = found || state == info.State
	}
	for key, value := range f.Labels {
		got, ok := info.Spec.Labels[key]
		found = found && ok && got == value
	}
	return found
}

// ImageConfig is what an image's maker says about running it, as in the OCI image specification. What a caller executes is the caller's choice.
type ImageConfig struct {
	Entrypoint []string `json:"entrypoint,omitempty"`
	Cmd        []string `json:"cmd,omitempty"` // After Entrypoint, unless the caller has arguments of its own.
	Env        []string `json:"env,omitempty"` // NAME=VALUE.
	User       string   `json:"user,omitempty"`
	WorkingDir string   `json:"working_dir,omitempty"`
}
