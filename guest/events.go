package guest

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"net"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// EventType is what happened to the guest's system.
type EventType string

// What can happen to a guest's system. A newer agent may tell of more.
const (
	EventOOMKill  EventType = wire.EventOOMKill  // The guest's kernel killed a process for want of memory: OOM says which.
	EventDiskLow  EventType = wire.EventDiskLow  // Less than 10 % of the root's bytes or files are free, or less than 15 % still: Disk says how much.
	EventDiskFull EventType = wire.EventDiskFull // None are free, or less than 2 % still.
	EventDiskOK   EventType = wire.EventDiskOK   // There is room again.
	EventLost     EventType = "lost"             // Events before this one are not kept any more: Lost says how many.
)

// Event is one thing that happened to a guest's system, as its agent tells it. Nothing of it is to be trusted: it is evidence of what a guest says.
type Event struct {
	Type EventType     `json:"type"`
	Boot string        `json:"boot"`  // Which run of the agent counts; another after each start of the machine.
	Seq  uint64        `json:"seq"`   // Its number in that run, from 1. With EventLost that of the last that is lost.
	Time time.Duration `json:"at_ns"` // On the guest's boot clock.
	OOM  *OOMKill      `json:"oom,omitempty"`
	Disk *Disk         `json:"disk,omitempty"`
	Lost uint64        `json:"lost,omitempty"`
}

// OOMKill says whom the guest's kernel killed. All of it is empty where the kernel has counted a kill and its log tells nothing of it.
type OOMKill struct {
	PID    int    `json:"pid,omitempty"` // In the guest.
	Name   string `json:"name,omitempty"`
	Cgroup string `json:"cgroup,omitempty"` // From the guest's root cgroup on.
}

// Disk is how much room the guest's root has, as what is written there finds it.
type Disk struct {
	Path      string `json:"path"`
	Free      int64  `json:"free"` // Bytes.
	Size      int64  `json:"size"` // Bytes.
	FilesFree int64  `json:"files_free"`
	Files     int64  `json:"files"` // 0 where nothing bounds them.
}

// EventsOptions are the options of [Events]. A nil pointer is the zero value.
type EventsOptions struct {
	// Boot and After are Event.Boot and Event.Seq of the last event that the caller has: only what came later is told. Optional: all that the agent keeps. The numbers of another boot mean
	// nothing, and all that is kept is told then, too.
	Boot  string
	After uint64
}

// Events tells what happened to the guest's system, oldest first, as far as its agent keeps it (256 events), and then what happens: processes that its kernel kills for want of memory, at once, and a
// disk that fills up or has room again, within 5 seconds.
//
// The iteration ends when ctx ends or when it is left; the connection is held until then, and when the iteration never begins, until ctx ends. When it breaks it is made again, and no event is lost
// or doubled; what the agent has not kept meanwhile is told as EventLost. When the machine ends it returns the reason: microvm.ErrExited, ErrState or ErrNotFound.
//
// microvm.ErrBusy when 64 watch already, and microvm.ErrUnsupported when the agent is too old.
func Events(ctx context.Context, d Dialer, o *EventsOptions) (iter.Seq2[Event, error], error) {
	fail := func(err error) error { return fmt.Errorf("events: %w", err) }
	var request wire.Subscribe
	if o != nil {
		request.Boot, request.After = o.Boot, o.After
	}
	if request.Boot != "" && !wire.ValidID(request.Boot) {
		return nil, fail(&microvm.FieldError{Field: "EventsOptions.Boot", Value: request.Boot, Reason: "must be an Event's"})
	}
	f, err := newFeed(ctx, func(ctx context.Context) (net.Conn, *bufio.Reader, error) {
		return upgrade(ctx, d, wire.PathEvents, &request)
	})
	if err != nil {
		return nil, fail(explain(ctx, d, err, wire.FeatureEvents))
	}
	return all(f, func(text []byte) ([]Event, error) {
		if text == nil { // the connection was made again: what comes next says whether something is missing
			return nil, nil
		}
		event, err := systemEvent(text)
		if err != nil {
			return nil, err
		}
		if event.Boot != request.Boot {
			request.Boot, request.After = event.Boot, 0
		}
		if event.Seq <= request.After {
			return nil, fmt.Errorf("%w: number %d behind %d", ErrAgent, event.Seq, request.After)
		}
		missing := event.Seq - request.After - 1
		request.After = event.Seq
		if missing == 0 {
			return []Event{event}, nil
		}
		return []Event{{Type: EventLost, Boot: event.Boot, Seq: event.Seq - 1, Time: event.Time, Lost: missing}, event}, nil
	}, fail), nil
}

// systemEvent takes only what an agent may say.
func systemEvent(text []byte) (Event, error) {
	var e wire.SystemEvent
	if err := json.Unmarshal(text, &e); err != nil || !wire.ValidID(e.Boot) || e.Seq == 0 || e.Kind == "" || e.Kind == string(EventLost) {
		return Event{}, fmt.Errorf("%w: event %q", ErrAgent, clean(string(text)))
	}
	event := Event{Type: EventType(clean(e.Kind)), Boot: e.Boot, Seq: e.Seq, Time: e.Time}
	if e.OOM != nil {
		event.OOM = &OOMKill{PID: max(e.OOM.PID, 0), Name: clean(e.OOM.Name), Cgroup: clean(e.OOM.Cgroup)}
	}
	if e.Disk != nil {
		event.Disk = &Disk{Path: clean(e.Disk.Path), Free: e.Disk.Free, Size: e.Disk.Size, FilesFree: e.Disk.FilesFree, Files: e.Disk.Files}
	}
	return event, nil
}
