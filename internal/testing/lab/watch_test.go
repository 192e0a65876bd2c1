//go:build linux

package lab

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"net"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// told is what a watch makes of what a lab says.
type told struct {
	*watch
	events []Event
	orders []string // What it was told to run.
	err    error
}

func watches(jobs []Job, event func(Event)) *watch {
	return &watch{patience: usualPatience(), share: &share{queue: newQueue(len(jobs)), job: NoJob}, jobs: jobs, event: event}
}

// watched has a lab say things, and then nothing until it is given up, in time that costs none.
func watched(t *testing.T, jobs []Job, lab func(say func(Event))) (got told) {
	synctest.Test(t, func(t *testing.T) {
		got.watch = watches(jobs, func(e Event) { got.events = append(got.events, e) })
		inside, outside := net.Pipe()
		gone, orders := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(orders)
			for lines := bufio.NewScanner(inside); lines.Scan(); {
				got.orders = append(got.orders, lines.Text())
			}
		}()
		go func() {
			defer inside.Close()
			lab(func(e Event) {
				line, _ := json.Marshal(e)
				if _, err := inside.Write(append(line, '\n')); err != nil {
					runtime.Goexit()
				}
			})
			<-gone
		}()
		got.err = got.follow(outside)
		close(gone)
		<-orders
		time.Sleep(Beat) // in which it hears that nobody listens
	})
	return got
}

func beats(say func(Event), n int) {
	for range n {
		time.Sleep(Beat)
		say(Event{Beat: true})
	}
}

// TestStall: a lab that beats may be silent for as long as its job may take, one that does not is given up, and the error says where.
func TestStall(t *testing.T) {
	jobs := []Job{{Name: "first", Timeout: 20 * time.Minute}, {Name: "second", Timeout: 20 * time.Minute}}
	for name, c := range map[string]struct {
		lab    func(say func(Event))
		want   string
		orders string
	}{
		"at once":          {func(func(Event)) {}, "stood still for 180 s before its boot", ""},
		"in its first job": {func(say func(Event)) { say(Event{Boot: "3.1"}); beats(say, 1000) }, "stood still for 60 s in first", "0"},
		"in the second":    {func(say func(Event)) { say(Event{Boot: "3.1"}); beats(say, 1000); say(Event{Exit: new(1)}) }, "stood still for 60 s in second", "0 1"},
		"when all is done": {func(say func(Event)) {
			say(Event{Boot: "3.1"})
			say(Event{Exit: new(0)})
			say(Event{Job: 1, Exit: new(0)})
		}, "stood still for 60 s after its last job", "0 1 -1"},
	} {
		t.Run(name, func(t *testing.T) {
			got := watched(t, jobs, c.lab)
			halt, ok := errors.AsType[*haltError](got.err)
			if !ok || !strings.Contains(halt.reason, c.want) || halt.overran {
				t.Errorf("%v, want %q", got.err, c.want)
			}
			if slices.ContainsFunc(got.events, func(e Event) bool { return e.Beat }) {
				t.Errorf("beats are among the events %v", got.events)
			}
			if orders := strings.Join(got.orders, " "); orders != c.orders {
				t.Errorf("it was told to run %q, want %q", orders, c.orders)
			}
		})
	}
}

// TestOverrun: a job that a living lab does not end is ended, and the lab may take a little longer than the job's own time.
func TestOverrun(t *testing.T) {
	jobs := []Job{{Name: "first", Timeout: 5 * time.Minute}, {Name: "second", Timeout: 5 * time.Minute}}
	got := watched(t, jobs, func(say func(Event)) {
		say(Event{Boot: "3.1"})
		beats(say, 330) // late, and not too late
		say(Event{Job: 0, Exit: new(-1)})
		beats(say, 1000)
	})
	halt, ok := errors.AsType[*haltError](got.err)
	if !ok || !halt.overran || !strings.Contains(halt.reason, "second has run for 361 s, at most 300 s") {
		t.Fatalf("%v, want that of the second job", got.err)
	}
	if last := got.events[len(got.events)-1]; got.ended != 2 || strings.Join(got.orders, " ") != "0 1" || last.Job != 1 || last.Exit == nil || *last.Exit != -1 {
		t.Errorf("%d jobs ended, the last event is %+v", got.ended, last)
	}
}

// TestSlowListener: whoever hears the events may take his time.
func TestSlowListener(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watches([]Job{{Name: "first", Timeout: time.Hour}}, func(Event) { time.Sleep(10 * time.Minute) })
		inside, outside := net.Pipe()
		go func() {
			io.WriteString(inside, `{"boot":"3.1"}`+"\n"+`{"data":"aGVsbG8="}`+"\n"+`{"exit":0}`+"\n")
			inside.Close()
		}()
		if err := w.follow(outside); err != nil || w.ended != 1 {
			t.Errorf("%d jobs ended, %v", w.ended, err)
		}
	})
}

// TestLost: a lab whose emulator has lost a guest is given up at once, and one that says how often it looked is not.
func TestLost(t *testing.T) {
	jobs := []Job{{Name: "first", Timeout: 20 * time.Minute}, {Name: "second", Timeout: 20 * time.Minute}}
	got := watched(t, jobs, func(say func(Event)) {
		say(Event{Boot: "3.1"})
		say(Event{Exit: new(0)})
		beats(say, 10)
		say(Event{Job: 1, Data: []byte("it begins")})
		say(Event{Lost: "30000 faults"})
		say(Event{Job: 1, Exit: new(0)}) // nobody hears it
	})
	halt, ok := errors.AsType[*haltError](got.err)
	if !ok || !strings.Contains(halt.reason, "lost a guest in second (30000 faults)") || halt.overran || got.ended != 1 || len(got.events) != 3 {
		t.Errorf("%v after %+v", got.err, got.events)
	}
}
