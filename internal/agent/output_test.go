//go:build linux

package agent

import (
	"errors"
	"io"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// answers reads what it was told to, one after the other.
type answers []any

func (a *answers) Read(p []byte) (int, error) {
	next := (*a)[0]
	*a = (*a)[1:]
	if err, ok := next.(error); ok {
		return 0, &os.PathError{Op: "read", Path: "/dev/ptmx", Err: err}
	}
	return copy(p, next.(string)), nil
}

// TestTheEndOfATerminalComesTwice: the kernel looks first whether there is input, then whether the other side is closed. What was written between the two is there at the next read.
func TestTheEndOfATerminalComesTwice(t *testing.T) {
	closed := error(syscall.EIO)
	for name, told := range map[string]answers{
		"at once":         {"all", closed, closed},
		"behind its end":  {closed, "all", closed, closed},
		"behind its ends": {"a", closed, "l", closed, "l", closed, closed},
	} {
		text, err := io.ReadAll(terminalOutput{&told})
		if string(text) != "all" || !errors.Is(err, syscall.EIO) || len(told) != 0 {
			t.Errorf("%s: %q, %v; %d answers are left", name, text, err, len(told))
		}
	}
	other := answers{error(syscall.EBADF), "nothing of its own"}
	if _, err := (terminalOutput{&other}).Read(make([]byte, 9)); err == nil || len(other) != 1 {
		t.Errorf("after another error: %v", err)
	}
}

// TestOutputThatIsThereIsNotLate: a reader that comes late, on a busy system, finds all that was written; and it waits for no descendant that says nothing.
func TestOutputThatIsThereIsNotLate(t *testing.T) {
	ours, theirs, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close() // which a descendant holds
	c := newCollector(ours, false, wire.NewBuffer(0))
	c.linger = -time.Second // over before each read
	c.ended.Store(true)
	io.WriteString(theirs, "what it said")
	var reading sync.WaitGroup
	reading.Go(c.run)
	finished := make(chan struct{})
	go func() { finish([]*collector{c}, &reading); close(finished) }()
	select {
	case <-finished:
	case <-time.After(20 * time.Second):
		t.Fatal("it waits for a descendant that says nothing")
	}
	text := make([]byte, 100)
	n, err := c.buffer.ReadAt(text, 0, nil)
	if err != nil || string(text[:n]) != "what it said" {
		t.Errorf("%q, %v", text[:n], err)
	}
}

// TestWhatAProgramSaidIsReadLate: a program of a renewal may have ended long before the agent comes to read what it said.
func TestWhatAProgramSaidIsReadLate(t *testing.T) {
	for name, held := range map[string]bool{"to its end": false, "and a descendant is not waited for": true} {
		ours, theirs, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer ours.Close()
		io.WriteString(theirs, "what it said")
		if !held {
			theirs.Close()
		}
		ours.SetReadDeadline(time.Now().Add(-time.Second))
		said := &tail{}
		said.readAll(ours)
		if got := said.String(); got != "what it said" {
			t.Errorf("%s: %q", name, got)
		}
		theirs.Close()
	}
}
