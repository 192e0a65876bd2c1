package guest

import (
	"strconv"
	"syscall"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// Exit is how a command ended.
type Exit struct {
	Code     int    // The exit status, when Signal is 0.
	Signal   int    // The signal that ended it.
	TimedOut bool   // Cmd.Timeout was over.
	Usage    *Usage // Nil when the guest's agent is too old to tell.
}

// Usage is what a command, and those of its descendants that it has waited for, have used, as exec.Cmd's ProcessState tells it.
type Usage struct {
	User   time.Duration // Time of a processor outside of the guest's kernel,
	System time.Duration // and within.
	MaxRSS int64         // The most memory that one of them had at a time, in bytes. It is never less than what the agent had when it started the command.
}

func exitOf(e wire.Exit) *Exit {
	exit := &Exit{Code: e.Code, Signal: e.Signal, TimedOut: e.TimedOut}
	if u := e.Usage; u != nil {
		exit.Usage = &Usage{User: u.User, System: u.System, MaxRSS: u.MaxRSS}
	}
	return exit
}

// Success says whether the command ended by itself with status 0, in time.
func (e *Exit) Success() bool { return e.Code == 0 && e.Signal == 0 && !e.TimedOut }

// ExitError is a command that ended otherwise than with status 0.
type ExitError struct {
	Code     int    // The exit status, when Signal is 0.
	Signal   int    // The signal that ended it.
	TimedOut bool   // Cmd.Timeout was over.
	Stderr   []byte // The end of standard error, from [Cmd.Output] only.
}

// Error returns "exit status 3" or "signal: killed".
func (e *ExitError) Error() string {
	switch {
	case e.TimedOut && e.Signal == 0:
		return "timed out: exit status " + strconv.Itoa(e.Code)
	case e.TimedOut:
		return "timed out: " + syscall.Signal(e.Signal).String()
	case e.Signal != 0:
		return "signal: " + syscall.Signal(e.Signal).String()
	}
	return "exit status " + strconv.Itoa(e.Code)
}
