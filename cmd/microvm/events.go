//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/spf13/cobra"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/egress"
	"github.com/tangle-network/microvm-runtime/guest"
)

func eventsCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "events [flags] [VM]",
		Short: "Print what happens to machines, by whatever process, until interrupted; of one machine also what its guest tells",
		Long: `Print what happens to machines, by whatever process, until interrupted.

With a machine's name it is only what happens to that one, and also what the agent of its guest tells, from what it has kept on: processes that the guest's kernel
killed for want of memory, and its disk when it fills up.`,
		Args: count(0, 1),
		RunE: runtimeVerb(func(ctx context.Context, rt *microvm.Runtime, args []string) error {
			events, err := rt.Watch(ctx, nil)
			if err != nil {
				return err
			}
			e := &eventPrinter{json: asJSON, out: os.Stdout}
			if len(args) > 0 {
				if err := e.choose(ctx, rt, args[0]); err != nil {
					return err
				}
			}
			ctx, cancel := context.WithCancel(ctx)
			defer e.guests.Wait()
			defer cancel()
			e.follow(ctx)
			for event, err := range events {
				if err != nil {
					return err
				}
				if e.uid != "" && e.uid != event.UID {
					continue
				}
				if err := e.print(event); err != nil {
					return err
				}
				if event.Type == microvm.EventStarted {
					e.follow(ctx)
				}
			}
			return nil
		}),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object a line; what the guest tells is its field guest")
	return cmd
}

// eventPrinter prints events of machines, and of the guest of one.
type eventPrinter struct {
	json   bool
	out    io.Writer
	uid    string       // of the one machine; empty for all
	agent  guest.Dialer // nil without
	guests sync.WaitGroup

	mu   sync.Mutex // one line at a time
	last guest.EventsOptions
}

// guestEvent is what a guest tells, as JSON.
type guestEvent struct {
	Time  time.Time   `json:"time"` // When it came.
	UID   string      `json:"uid"`
	Guest guest.Event `json:"guest"`
}

// choose makes it one machine's events that are printed.
func (e *eventPrinter) choose(ctx context.Context, rt *microvm.Runtime, ref string) error {
	vm, err := rt.VM(ctx, ref)
	if err != nil {
		return err
	}
	info, err := vm.Info(ctx)
	if err != nil {
		return err
	}
	e.uid = vm.UID()
	if info.Agent {
		e.agent = vm
	}
	return nil
}

// follow prints what the guest of the machine's present run tells, until that ends. What was printed of it already is not printed again.
func (e *eventPrinter) follow(ctx context.Context) {
	if e.agent == nil {
		return
	}
	e.guests.Go(func() {
		err := e.followGuest(ctx)
		over := errors.Is(err, microvm.ErrExited) || errors.Is(err, microvm.ErrState) || errors.Is(err, microvm.ErrNotFound) // the machine's own events say so
		if err != nil && !over && ctx.Err() == nil {
			fmt.Fprintf(os.Stderr, "microvm: %s: the guest tells nothing: %v\n", e.uid, err)
		}
	})
}

func (e *eventPrinter) followGuest(ctx context.Context) error {
	if err := guest.Wait(ctx, e.agent); err != nil {
		return err
	}
	e.mu.Lock()
	from := e.last
	e.mu.Unlock()
	events, err := guest.Events(ctx, e.agent, &from)
	if err != nil {
		return err
	}
	for event, err := range events {
		if err != nil {
			return err
		}
		if err := e.printGuest(event); err != nil {
			return err
		}
	}
	return nil
}

func (e *eventPrinter) print(event microvm.Event) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.json {
		return json.NewEncoder(e.out).Encode(event)
	}
	exit := ""
	if event.Exit != nil {
		exit = " " + event.Exit.String()
	}
	if event.Denied != nil {
		exit = fmt.Sprintf(" %s (%s)", deniedText(*event.Denied), noRule)
		if opens := event.Denied.Opens(); opens != (egress.Rule{}) {
			exit = fmt.Sprintf(" %s (%s opens it)", deniedText(*event.Denied), opens)
		}
	}
	_, err := fmt.Fprintf(e.out, "%s %s %s %s%s\n", event.Time.Local().Format(time.RFC3339Nano), event.UID, event.Name, event.Type, exit)
	return err
}

func (e *eventPrinter) printGuest(event guest.Event) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if event.Boot == e.last.Boot && event.Seq <= e.last.After {
		return nil // another connection has told it
	}
	e.last = guest.EventsOptions{Boot: event.Boot, After: event.Seq}
	if e.json {
		return json.NewEncoder(e.out).Encode(guestEvent{Time: time.Now(), UID: e.uid, Guest: event})
	}
	_, err := fmt.Fprintf(e.out, "%s %s guest %s%s\n", time.Now().Format(time.RFC3339Nano), e.uid, event.Type, saidOf(event))
	return err
}

// saidOf is what an event of a guest's says beside its type.
func saidOf(event guest.Event) string {
	switch {
	case event.OOM != nil && event.OOM.PID == 0:
		return " of a process that the kernel's log does not name"
	case event.OOM != nil:
		return fmt.Sprintf(" of %q, process %d in cgroup %q", event.OOM.Name, event.OOM.PID, event.OOM.Cgroup)
	case event.Disk != nil:
		return fmt.Sprintf(" %q: %d of %d bytes are free, %d of %d files", event.Disk.Path, event.Disk.Free, event.Disk.Size, event.Disk.FilesFree, event.Disk.Files)
	case event.Lost > 0:
		return fmt.Sprintf(" %d", event.Lost)
	}
	return ""
}
