package guest

import (
	"context"
	"fmt"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// State says whether a command runs.
type State string

// The states of a command.
const (
	StateRunning State = "running" // The command, or its output, goes on.
	StateExited  State = "exited"  // It has ended, and nobody has waited for it.
)

// Process is a command that the agent knows: one that runs, or that has ended and that nobody has waited for. Its texts are the guest's: print them with %q.
type Process struct {
	ID       string        // Cmd.ID: what [Attach] takes.
	Args     []string      // The first 500 bytes or so.
	ArgsCut  bool          // There are more.
	PID      int           // In the guest.
	Started  time.Duration // On the guest's boot clock, as Health.Uptime.
	State    State
	TTY      bool  // It has a terminal.
	Attached bool  // Somebody is connected to its streams.
	Exit     *Exit // Of one that has ended.
}

// List returns the commands that the agent knows, those first that started first. ErrUnsupported when the agent is too old to tell.
func List(ctx context.Context, d Dialer) ([]Process, error) {
	if err := require(ctx, d, wire.FeatureProcesses); err != nil {
		return nil, fmt.Errorf("list: %w", err)
	}
	var all wire.Processes
	if err := call(ctx, d, "GET", wire.PathProcesses, nil, &all); err != nil {
		return nil, fmt.Errorf("list: %w", err)
	}
	list := make([]Process, 0, len(all.Processes))
	for _, p := range all.Processes {
		if !wire.ValidID(p.ID) {
			return nil, fmt.Errorf("list: %w: id %q", ErrAgent, clean(p.ID))
		}
		one := Process{ID: p.ID, Args: p.Argv, ArgsCut: p.ArgvCut, PID: p.PID, Started: p.Started, State: StateRunning, TTY: p.TTY, Attached: p.Attached}
		if p.Exit != nil {
			one.State, one.Exit = StateExited, exitOf(*p.Exit)
		}
		list = append(list, one)
	}
	return list, nil
}
