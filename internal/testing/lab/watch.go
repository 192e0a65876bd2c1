//go:build linux

package lab

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"time"
)

// patience is how long a lab is waited for, on this machine's clock. It is generous: the machine may be busy, and the lab is emulated.
type patience struct {
	boot time.Duration // From QEMU's start on.
	beat time.Duration // From one sign of life to the next.
	late time.Duration // Behind a job's Timeout, which the lab keeps by itself.
}

func usualPatience() patience {
	return patience{boot: 3 * time.Minute, beat: time.Minute, late: time.Minute}
}

// haltError is a lab that was given up, or that ended before it had begun.
type haltError struct {
	reason  string // In one line.
	overran bool   // A job of a lab that lives is the reason. It has failed, and is not run once more.
	console string
}

func (e *haltError) Error() string {
	return e.reason + "; the last lines of its console:\n" + e.console
}

// watch reads what a lab says, and whether it lives, and tells it what to run.
type watch struct {
	patience
	*share
	jobs  []Job
	event func(Event)

	booted   bool
	finished bool      // It was told that nothing is left.
	begun    time.Time // The job under way.
}

// accept follows the lab that connects. The error is a *haltError, or nil where the lab ended the connection.
func (w *watch) accept(listener *net.UnixListener) error {
	listener.SetDeadline(time.Now().Add(w.boot))
	conn, err := listener.Accept()
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return w.stall()
	case err != nil: // QEMU has ended
		return nil
	}
	return w.follow(conn)
}

// follow hands events on, to the connection's end. Only the wait for the lab is bounded, not that for those who get its events.
func (w *watch) follow(conn net.Conn) error {
	defer conn.Close()
	lines := bufio.NewReaderSize(conn, 1<<20)
	for {
		conn.SetReadDeadline(time.Now().Add(w.wait()))
		line, err := lines.ReadBytes('\n')
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return w.stall()
		case err != nil:
			return nil
		}
		var event Event
		if json.Unmarshal(line, &event) == nil {
			if event.Lost != "" {
				return w.lost(event.Lost)
			}
			if w.take(event) {
				w.order(conn)
			}
		}
		if err := w.overrun(); err != nil {
			return err
		}
	}
}

// wait is how long the next line may take.
func (w *watch) wait() time.Duration {
	if !w.booted {
		return w.boot
	}
	return w.beat
}

// take takes what a lab says, and returns whether it waits for a job.
func (w *watch) take(event Event) (waits bool) {
	switch {
	case event.Beat:
		return false
	case event.Boot != "":
		w.booted, waits = true, true
	case event.Exit != nil:
		w.end()
		waits = true
	}
	w.event(event)
	return waits
}

// order tells a lab what to run. One that doesn't hear it is one that ends, or stands still.
func (w *watch) order(conn net.Conn) {
	job := w.begin()
	w.begun, w.finished = time.Now(), job == NoJob
	conn.SetWriteDeadline(time.Now().Add(w.beat))
	fmt.Fprintln(conn, job)
}

// stall is the error of a lab that has said nothing for too long.
func (w *watch) stall() error {
	return &haltError{reason: fmt.Sprintf("the lab's host stood still for %v s %s", w.wait().Seconds(), w.where())}
}

// lost is the error of a lab that lives, and in which a guest doesn't.
func (w *watch) lost(shown string) error {
	return &haltError{reason: fmt.Sprintf("the lab's emulator has lost a guest %s (%s)", w.where(), shown)}
}

func (w *watch) where() string {
	switch {
	case !w.booted:
		return "before its boot"
	case w.job != NoJob:
		return "in " + w.jobs[w.job].Name
	}
	return "after its last job"
}

// overrun ends a job that a living lab should have ended long ago.
func (w *watch) overrun() error {
	if !w.booted || w.job == NoJob {
		return nil
	}
	job, took := w.jobs[w.job], time.Since(w.begun)
	if took <= job.Timeout+w.late {
		return nil
	}
	reason, killed := fmt.Sprintf("%s has run for %.0f s, at most %v s, and the lab did not end it", job.Name, took.Seconds(), job.Timeout.Seconds()), -1
	w.take(Event{Job: w.job, Data: []byte("\nlab: " + reason + "\n")})
	w.take(Event{Job: w.job, Exit: &killed})
	return &haltError{reason: reason, overran: true}
}
