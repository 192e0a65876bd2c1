// Package wire is the protocol between host and guest agent: what both sides must agree on, and nothing else.
//
// There are only two kinds of things: control messages, which are JSON in HTTP/1.1, and a [Frame], the unit of a stream. The protocol is described in
// docs/agent-protocol.md.
//
// # Caveats
//
// Neither side trusts the other: every length is bounded here, and what is beyond is an error, never memory.
package wire

import "time"

const (
	// Port is the vsock port that the agent listens on.
	Port = 1024
	// Version is the version of the protocol. An agent serves its own and all older ones.
	Version = 1
	// Upgrade is the value of the header Upgrade with which HTTP becomes frames.
	Upgrade = "microvm-stream/1"

	// MaxBody bounds a control message in bytes, in both directions.
	MaxBody = 1 << 20
	// Window bounds how much of a stream may be under way without being acknowledged, in bytes.
	Window = 256 << 10
)

// Paths of the agent's HTTP server.
const (
	PathHealth   = "/v1/health"
	PathExec     = "/v1/exec"
	PathSignal   = "/v1/signal"
	PathSync     = "/v1/sync"
	PathShutdown = "/v1/shutdown"
)

// Health is the answer to GET PathHealth.
type Health struct {
	Protocol int           `json:"protocol"`  // Version of the agent.
	Uptime   time.Duration `json:"uptime_ns"` // CLOCK_BOOTTIME when the question came.
	Ready    time.Duration `json:"ready_ns"`  // CLOCK_BOOTTIME when the agent began to listen.
}

// Exec is the body of POST PathExec. The first with an ID starts the process; a later one attaches to it again from the offsets, and its other fields are ignored.
type Exec struct {
	ID      string   `json:"id"`             // Chosen by the host: 1 to 64 of a–z, A–Z, 0–9.
	Argv    []string `json:"argv"`           // The program, looked for in PATH, and its arguments.
	Env     []string `json:"env,omitempty"`  // NAME=VALUE, over the agent's defaults.
	Dir     string   `json:"dir,omitempty"`  // Optional: the user's home, else "/".
	User    string   `json:"user,omitempty"` // NAME, UID, or either with :GROUP or :GID. Optional: root.
	Stdin   bool     `json:"stdin,omitempty"`
	Timeout int64    `json:"timeout_ms,omitempty"` // Every process of the session is killed after so long. 0 is never.
	// Attach says that the process must be there: it is not started.
	Attach bool `json:"attach,omitempty"`
	// Stdout and Stderr are how many bytes of each the host has already.
	Stdout uint64 `json:"stdout,omitempty"`
	Stderr uint64 `json:"stderr,omitempty"`
}

// Signal is the body of POST PathSignal. It goes to the process group that the process leads; SIGKILL to every process of its session. Nothing is signalled when the
// process has ended with all of its output.
type Signal struct {
	ID     string `json:"id"`
	Signal int    `json:"signal"` // 1 to 64.
}

// Exit is the payload of an exit frame.
type Exit struct {
	Code     int  `json:"code"`             // The exit status, when Signal is 0.
	Signal   int  `json:"signal,omitempty"` // The signal that ended the process.
	TimedOut bool `json:"timed_out,omitempty"`
}

// Error is the body of every answer that is not a success.
type Error struct {
	Code    string `json:"code"` // One of the codes below.
	Message string `json:"error"`
}

// Codes of an Error.
const (
	CodeInvalid  = "invalid"   // The message makes no sense.
	CodeNotFound = "not_found" // No such program, user, directory or process.
	CodeDenied   = "denied"    // The guest's system said no.
	CodeBusy     = "busy"      // Too many processes.
	CodeInternal = "internal"
)

// HeaderStdin is the header of an answer to Exec that says how many bytes of standard input have come: the host goes on from there. What the process has read of
// them is told by AckStdin.
const HeaderStdin = "Microvm-Stdin"
