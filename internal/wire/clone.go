package wire

import "time"

// What a snapshot asks of a guest, and what makes a machine that is restored from one its own.
const (
	PathFreeze = "/v1/freeze"
	PathThaw   = "/v1/thaw"
	PathRenew  = "/v1/renew"

	FeatureClone = "clone" // POST PathFreeze, PathThaw and PathRenew.
)

// Bounds of the bodies.
const (
	MaxLease   = 30 * time.Minute // Of Freeze.Lease.
	MinEntropy = 32               // Bytes of Renew.Entropy.
	MaxDetail  = 512              // Bytes of an item's Detail and Error.
	MaxItems   = 64               // Of Renewed.
)

// Freeze is the body of POST PathFreeze: file systems are flushed, and what was started by requests stands, with all that came of it.
type Freeze struct {
	Token string        `json:"token"`    // Of the host's choice: see ValidID. Thaw and Renew name it.
	Lease time.Duration `json:"lease_ns"` // After it the agent thaws by itself. More than 0, at most MaxLease.
}

// Thaw is the body of POST PathThaw. One of another token than the present freeze's does nothing.
type Thaw struct {
	Token string `json:"token"`
}

// Renew is the body of POST PathRenew. What is empty is left as it is, but for the clock and the generator of random numbers. Then what stands goes on, unless something mandatory failed.
type Renew struct {
	Token      string            `json:"token"`
	Unix       time.Duration     `json:"unix_ns"`              // CLOCK_REALTIME from now on.
	Entropy    []byte            `json:"entropy"`              // MinEntropy to MaxEntropy bytes, each of 8 random bits that nobody else has.
	MachineID  string            `json:"machine_id,omitempty"` // 32 lowercase hexadecimal digits (machine-id(5)).
	Hostname   string            `json:"hostname,omitempty"`   // See ValidHostname.
	Generation string            `json:"generation"`           // What no other machine of the snapshot has: see ValidID.
	Env        map[string]string `json:"env,omitempty"`        // As Env.Set.
	Secrets    map[string][]byte `json:"secrets,omitempty"`
	// Hold leaves what stands as it is, and hooks to the renewal that comes when the machine is handed out.
	Hold bool `json:"hold,omitempty"`
}

// Renewed is the answer to one.
type Renewed struct {
	Items []RenewedItem `json:"items"`
}

// RenewedItem is one thing that was to be done.
type RenewedItem struct {
	Item      string `json:"item"`
	Done      bool   `json:"done"`
	Mandatory bool   `json:"mandatory,omitempty"`
	Detail    string `json:"detail,omitempty"`
	Error     string `json:"error,omitempty"`
}

// ValidMachineID says whether a text is 32 lowercase hexadecimal digits, and not all of them 0.
func ValidMachineID(id string) bool {
	zeros := 0
	for _, r := range id {
		if (r < '0' || r > '9') && (r < 'a' || r > 'f') {
			return false
		}
		if r == '0' {
			zeros++
		}
	}
	return len(id) == 32 && zeros < 32
}
