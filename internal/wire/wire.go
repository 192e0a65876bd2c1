// Package wire is the protocol between host and guest agent: what both sides must agree on, and nothing else.
//
// There are only two kinds of things: control messages, which are JSON in HTTP/1.1, and a [Frame], the unit of a stream. The protocol is described in
// docs/agent-protocol.md.
//
// # Caveats
//
// Neither side trusts the other: every length is bounded here, and what is beyond is an error, never memory.
package wire

import (
	"strings"
	"time"
)

const (
	// Port is the vsock port that the agent listens on.
	Port = 1024
	// Version is the version of the protocol. A host goes on with an agent of its own or an older one, and refuses a newer: what that has in common with older ones can't
	// be known. What an older side may ignore, or a host can look for, is a feature and no new version.
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
	PathHealth    = "/v1/health"
	PathExec      = "/v1/exec"
	PathProcesses = "/v1/processes"
	PathSignal    = "/v1/signal"
	PathDial      = "/v1/dial"
	PathListen    = "/v1/listen"
	PathAccept    = "/v1/accept"
	PathEnv       = "/v1/env"
	PathSecrets   = "/v1/secrets" // And below it each secret by its name.
	PathClock     = "/v1/clock"
	PathEntropy   = "/v1/entropy"
	PathHostname  = "/v1/hostname"
	PathSync      = "/v1/sync"
	PathShutdown  = "/v1/shutdown"
)

// Features that came after the first agents. A host asks for none that Health does not tell.
const (
	FeatureAttach    = "attach"    // Exec.Kept, HeaderAttached, CodeGone and the frame Replaced.
	FeatureDetached  = "detached"  // Exec.Detached.
	FeatureNonce     = "nonce"     // Exec.Nonce and CodeExists.
	FeatureProcesses = "processes" // GET PathProcesses.
	FeatureUsage     = "usage"     // Exit.Usage.
	FeatureTTY       = "tty"       // Exec.TTY and the frame Resize.
	FeatureDial      = "dial"      // POST PathDial, the frames Data and DataEnd, CodeRefused and CodeNoAnswer.
	FeatureEnv       = "env"       // POST PathEnv.
	FeatureSecrets   = "secrets"   // GET PathSecrets; PUT and DELETE below it.
	FeatureMetadata  = "metadata"  // MetadataPort.
	FeatureClock     = "clock"     // POST PathClock.
	FeatureEntropy   = "entropy"   // POST PathEntropy.
	FeatureHostname  = "hostname"  // POST PathHostname.
	FeatureForget    = "forget"    // Signal.Forget.
	FeatureListen    = "listen"    // POST PathListen and PathAccept, the frame Incoming.
)

// Features returns all of this version.
func Features() []string {
	return []string{FeatureAttach, FeatureDetached, FeatureNonce, FeatureProcesses, FeatureUsage, FeatureTTY, FeatureDial, FeatureListen,
		FeatureEnv, FeatureSecrets, FeatureMetadata, FeatureClock, FeatureEntropy, FeatureHostname, FeatureCopy, FeatureForget, FeatureFS, FeatureResume, FeatureWatch, FeatureEvents, FeatureClone}
}

// Health is the answer to GET PathHealth.
type Health struct {
	Protocol int           `json:"protocol"`  // Version of the agent.
	Uptime   time.Duration `json:"uptime_ns"` // CLOCK_BOOTTIME when the question came.
	Ready    time.Duration `json:"ready_ns"`  // CLOCK_BOOTTIME when the agent began to listen.
	Features []string      `json:"features,omitempty"`
}

// Exec is the body of POST PathExec. The first with an ID starts the process; a later one attaches to it again from the offsets, and its other fields are ignored.
type Exec struct {
	ID string `json:"id"` // Chosen by the host: see ValidID.
	// Nonce is chosen at random by who starts the process, and the same when it asks again. A start under an id that is taken, with another nonce, is CodeExists.
	Nonce string `json:"nonce,omitempty"`
	// Attempt counts the connections of a nonce: one that comes late takes nothing from a later one.
	Attempt uint64 `json:"attempt,omitempty"`

	Argv    []string `json:"argv"`           // The program, looked for in PATH, and its arguments.
	Env     []string `json:"env,omitempty"`  // NAME=VALUE, over the agent's defaults.
	Dir     string   `json:"dir,omitempty"`  // Optional: the user's home, else "/".
	User    string   `json:"user,omitempty"` // NAME, UID, or either with :GROUP or :GID. Optional: root.
	Stdin   bool     `json:"stdin,omitempty"`
	Timeout int64    `json:"timeout_ms,omitempty"` // Every process of the session is killed after so long. 0 is never.
	// TTY gives the process a terminal of that size, which is all of its standard streams and controls its session. What it says is standard output; standard error
	// is empty. Standard input is there whatever Stdin says, and has no end. When the process is let go the terminal hangs up.
	TTY *TTY `json:"tty,omitempty"`
	// Attach says that the process must be there: it is not started.
	Attach bool `json:"attach,omitempty"`
	// Stdout and Stderr are how many bytes of each the host has already. CodeGone when what comes next is not kept.
	Stdout uint64 `json:"stdout,omitempty"`
	Stderr uint64 `json:"stderr,omitempty"`
	// Kept asks for all that is kept instead: HeaderAttached says where it begins.
	Kept bool `json:"kept,omitempty"`
	// Detached starts the process and leaves it: the request has no Upgrade, and the answer is Started. It is forgotten only when a host has all of it, or when
	// there is no room, the one that ended first before others.
	Detached bool `json:"detached,omitempty"`
}

// TTY is the size of a terminal's window.
type TTY struct {
	Rows uint16 `json:"rows"`
	Cols uint16 `json:"cols"`
}

// ValidID says whether an id is 1 to 64 of a–z, A–Z, 0–9.
func ValidID(id string) bool {
	other := func(r rune) bool { return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') }
	return len(id) >= 1 && len(id) <= 64 && strings.IndexFunc(id, other) < 0
}

// Started is the answer to a detached Exec.
type Started struct {
	PID int `json:"pid"`
}

// Processes is the answer to GET PathProcesses, oldest first. It is never larger than MaxBody.
type Processes struct {
	Processes []Process `json:"processes"`
}

// Process is one that runs, or that ended and of which no host has said that it has all.
type Process struct {
	ID       string        `json:"id"`
	Argv     []string      `json:"argv"`               // At most MaxArgv bytes of it.
	ArgvCut  bool          `json:"argv_cut,omitempty"` // There is more.
	PID      int           `json:"pid"`
	Started  time.Duration `json:"started_ns"` // CLOCK_BOOTTIME.
	TTY      bool          `json:"tty,omitempty"`
	Attached bool          `json:"attached,omitempty"` // A host is connected to it.
	Exit     *Exit         `json:"exit,omitempty"`     // Without it the process, or its output, goes on.
}

// MaxArgv bounds Process.Argv, in bytes of JSON: so all processes fit into one answer.
const MaxArgv = 512

// Attached is the value of HeaderAttached, in JSON.
type Attached struct {
	Stdin     uint64 `json:"stdin"`                // As HeaderStdin.
	StdinOpen bool   `json:"stdin_open,omitempty"` // The process has a standard input, whose end was not said.
	TTY       bool   `json:"tty,omitempty"`
	Stdout    uint64 `json:"stdout"` // Where what the agent sends begins.
	Stderr    uint64 `json:"stderr"`
}

// Signal is the body of POST PathSignal. It goes to the process group that the process leads; SIGKILL to every process of its session. Nothing is signalled when the
// process has ended with all of its output.
type Signal struct {
	ID     string `json:"id"`
	Signal int    `json:"signal"` // 1 to 64.

	// Forget is the Nonce of a start whose host has gone, and wants nothing of the process: where it is that process's, the process is signalled and forgotten, else it is not
	// found. Such a start that comes later is refused.
	Forget string `json:"forget,omitempty"`
}

// Exit is the payload of an exit frame.
type Exit struct {
	Code     int  `json:"code"`             // The exit status, when Signal is 0.
	Signal   int  `json:"signal,omitempty"` // The signal that ended the process.
	TimedOut bool `json:"timed_out,omitempty"`
	// Usage is that of the process, and of the descendants that it has waited for (wait4(2)). Optional.
	Usage *Usage `json:"usage,omitempty"`
}

// Usage is what a process has used.
type Usage struct {
	User   time.Duration `json:"user_ns"`
	System time.Duration `json:"system_ns"`
	MaxRSS int64         `json:"max_rss"` // Bytes.
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
	CodeBusy     = "busy"      // Too many processes, tunnels or listeners.
	CodeExists   = "exists"    // Another process has the id, or another listener the address.
	CodeGone     = "gone"      // What was asked for is not kept any more, or was never there.
	CodeRefused  = "refused"   // Nobody listens where Dial leads.
	CodeNoAnswer = "no_answer" // What is dialled can't be reached, or says nothing.
	CodeFull     = "full"      // A file system of the guest has no room.
	CodeInternal = "internal"
)

const (
	// HeaderStdin is the header of an answer to Exec that says how many bytes of standard input have come: the host goes on from there. What the process has read
	// of them is told by AckStdin.
	HeaderStdin = "Microvm-Stdin"
	// HeaderAttached is the header of such an answer that says all of it: an Attached in JSON.
	HeaderAttached = "Microvm-Attached"
)
