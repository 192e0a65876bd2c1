//go:build linux

package fakevmm

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"time"
)

// Faults are what is to go wrong in all VMMs of one binary. The zero value is a healthy 1.12.1.
type Faults struct {
	Version string `json:"version,omitempty"` // Of the release that it is. Optional: 1.12.1.
	// Refuse is said on standard error instead of a start.
	Refuse string `json:"refuse,omitempty"`
	// Silent VMMs start and never listen.
	Silent bool `json:"silent,omitempty"`
	// Deaf guests ignore Ctrl-Alt-Del.
	Deaf bool `json:"deaf,omitempty"`
	// DeafVsock guests answer no connection of the host.
	DeafVsock bool `json:"deaf_vsock,omitempty"`
	// Lax VMMs run with 32 vCPUs whatever they are told.
	Lax bool `json:"lax,omitempty"`
	// Requests are faults by route, such as "PATCH /vm".
	Requests map[string]Fault `json:"requests,omitempty"`
}

// Fault is what goes wrong with a request.
type Fault struct {
	Delay   time.Duration `json:"delay,omitempty"`   // Before anything else.
	Hang    bool          `json:"hang,omitempty"`    // No answer, ever.
	Die     bool          `json:"die,omitempty"`     // The VMM ends by SIGKILL.
	Garbage string        `json:"garbage,omitempty"` // Sent in place of an answer, as it is.
	Status  int           `json:"status,omitempty"`  // An answer with this status, and a fault_message.
}

// name is where a binary looks for its faults: beside itself, since a VMM gets no environment.
func faultsFile(binary string) string { return binary + ".faults" }

// Install makes the running test binary a firecracker at dir, with faults, and returns its path. The test's TestMain calls [Invoked].
func Install(dir string, faults Faults) (string, error) {
	path := filepath.Join(dir, "firecracker")
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	if err := os.Link(self, path); err != nil && !errors.Is(err, os.ErrExist) {
		if err := os.Symlink(self, path); err != nil { // another file system
			return "", err
		}
	}
	return path, Inject(path, faults)
}

// Inject changes the faults of a binary, also of its VMMs that run.
func Inject(path string, faults Faults) error {
	text, err := json.Marshal(faults)
	if err != nil {
		return err
	}
	if err := os.WriteFile(faultsFile(path)+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(faultsFile(path)+".new", faultsFile(path))
}

func readFaults(path string) (f Faults, err error) {
	text, err := os.ReadFile(faultsFile(path))
	if err != nil {
		return f, err
	}
	return f, json.Unmarshal(text, &f)
}
