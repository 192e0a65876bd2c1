package microvm

import "time"

// StartOptions are the options of [VM.Start]. Nil, or the zero value, is the default.
type StartOptions struct {
	// AgentTimeout is how long Start waits for the guest's agent. Optional: a minute. Where there is no agent, Start
	// returns when the VMM says that the machine runs.
	AgentTimeout time.Duration
	// NoWait returns when the VMM says that the machine runs, without waiting for the agent.
	NoWait bool
}

// StopOptions are the options of [VM.Stop]. Nil, or the zero value, is the default.
type StopOptions struct {
	// Grace is how long each graceful step may take: first the agent is asked, then Ctrl-Alt-Del is sent, then the VMM is
	// killed. Optional: 5 seconds.
	Grace time.Duration
	// Force kills the VMM at once. What the guest had not yet written to its disk is lost.
	Force bool
}

// ConsoleOptions are the options of [VM.Console]. Nil, or the zero value, is the default.
type ConsoleOptions struct {
	// Follow goes on reading until the machine's run ends. Otherwise reading ends with what is there.
	Follow bool
	// Tail is how many bytes before the present end to begin at. Optional: all that is kept.
	Tail int
}
