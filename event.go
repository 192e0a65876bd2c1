package microvm

import "time"

// EventType is what happened to a machine.
type EventType string

// What can happen to a machine.
const (
	EventCreated     EventType = "created"
	EventStarted     EventType = "started"
	EventPaused      EventType = "paused"
	EventResumed     EventType = "resumed"
	EventStopped     EventType = "stopped" // By whatever reason: Exit says which.
	EventRenamed     EventType = "renamed" // Name is the new one.
	EventDestroyed   EventType = "destroyed"
	EventSnapshotted EventType = "snapshotted" // A snapshot of it is there.
	EventClaimed     EventType = "claimed"     // A machine that was held is handed out. Name is the new one.
	// EventDenied is a flow that no rule allows, or a name that was asked for: told at most once a minute for each, and at most ten a second of a machine, while a process lives that watches the machine.
	EventDenied EventType = "denied"
)

// Event is one change of one machine, made by this or by any other process.
type Event struct {
	Time   time.Time         `json:"time"`
	Type   EventType         `json:"type"`
	UID    string            `json:"uid"`
	Name   string            `json:"name"`
	Exit   *Exit             `json:"exit,omitempty"`   // With EventStopped.
	Denied *DeniedFlow       `json:"denied,omitempty"` // With EventDenied.
	Labels map[string]string `json:"labels,omitempty"` // The machine's labels.
}
