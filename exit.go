package microvm

import (
	"fmt"
	"time"
)

// Reason is why a run of a machine ended.
type Reason string

const (
	// ReasonStopped is a graceful power-off that Stop asked for.
	ReasonStopped Reason = "stopped"
	// ReasonForced is an end that Stop or Destroy forced, at once or when the grace was over.
	ReasonForced Reason = "forced"
	// ReasonGuest is a guest that ended its run itself: by a reboot, or by a panic with panic=1, which look alike.
	ReasonGuest Reason = "guest"
	// ReasonCrashed is a VMM that ended by a signal that was not ours, or with an error.
	ReasonCrashed Reason = "crashed"
	// ReasonOOM is a VMM that the kernel killed for memory.
	ReasonOOM Reason = "oom"
	// ReasonReboot is a host that was rebooted while the machine ran.
	ReasonReboot Reason = "host-reboot"
	// ReasonUnknown is an end that left no evidence.
	ReasonUnknown Reason = "unknown"
)

// Exit says how a run of a machine ended, and how that is known.
type Exit struct {
	Reason   Reason    `json:"reason"`
	Code     int       `json:"code"`               // The VMM's exit status; -1 when it ended by a signal or is not known.
	Signal   int       `json:"signal,omitempty"`   // The signal that ended the VMM; 0 when none did or it is not known.
	Time     time.Time `json:"time"`               // When the end was seen.
	Evidence []string  `json:"evidence,omitempty"` // What the reason was concluded from, one fact a line.
}

// String returns the reason with the status that it was concluded from.
func (e Exit) String() string {
	switch {
	case e.Signal != 0:
		return fmt.Sprintf("%s (signal %d)", e.Reason, e.Signal)
	case e.Code >= 0:
		return fmt.Sprintf("%s (status %d)", e.Reason, e.Code)
	}
	return string(e.Reason)
}
