//go:build linux

package guest_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tangle-network/microvm-runtime/guest"
	"github.com/tangle-network/microvm-runtime/guest/guesttest"
)

// jobs are shell scripts that say the pids of processes, one a line, and then "ready".
var jobs = map[string]string{
	"a child":                      "sleep 1000 & echo $!; echo ready; wait",
	"jobs in groups of their own":  "set -m; sleep 1000 & echo $!; sleep 1000 & echo $!; echo ready; wait",
	"one that ignores signals":     "trap '' HUP INT TERM; set -m; (trap '' HUP TERM; echo $BASHPID; while :; do sleep 1; done) & sleep 0.1; echo ready; wait",
	"many that start meanwhile":    "echo ready; for i in {1..300}; do sleep 1000 & echo $!; done; wait",
	"one whose leader has gone":    "set -m; (sleep 1000; :) & echo $!; echo ready",
	"one that stopped":             "set -m; sleep 1000 & echo $!; kill -STOP $!; echo ready; sleep 1000",
	"one below another's group":    "set -m; (sleep 1000 & echo $!; wait) & echo $!; sleep 0.1; echo ready; wait",
	"one that has lost its parent": "(sleep 1000 & echo $!) ; echo ready; sleep 1000",
}

// start starts a script and reads what it says until it is ready. What it says after is to be asked for after Wait.
func start(t *testing.T, ctx context.Context, c *guest.Cmd) (said string, rest func() string) {
	t.Helper()
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(ctx); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if line == "ready\n" {
			break
		}
		said += line
	}
	more := make(chan string, 1)
	go func() {
		text, _ := io.ReadAll(lines)
		more <- string(text)
	}()
	return said, func() string { return <-more }
}

// lives says whether a process runs: one that nobody has reaped yet does not.
func lives(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(text), ") Z ")
}

// expectDead waits for ends: what a process that is killed has open is closed a moment before.
func expectDead(t *testing.T, pids string) {
	t.Helper()
	begin := time.Now()
	for line := range strings.FieldsSeq(pids) {
		pid, err := strconv.Atoi(line)
		if err != nil {
			t.Fatal(err)
		}
		for lives(pid) && time.Since(begin) < 20*time.Second {
			time.Sleep(time.Millisecond)
		}
		if lives(pid) {
			t.Errorf("process %d lives", pid)
			syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// TestTimeOutsReachTheWholeSession has all of them run at once: each has long enough to begin in.
func TestTimeOutsReachTheWholeSession(t *testing.T) {
	a := guesttest.New(t)
	ends := map[string]func(*testing.T){}
	for name, script := range jobs {
		c := guest.Command(a, "bash", "-c", script)
		c.Timeout = 1500 * time.Millisecond // less than a silent descendant is waited for
		pids, rest := start(t, t.Context(), c)
		ends[name] = func(t *testing.T) {
			err := within(t, c.Wait)
			if exit := (*guest.ExitError)(nil); name != "one whose leader has gone" && (!errors.As(err, &exit) || !exit.TimedOut) {
				t.Errorf("error %v", err)
			}
			expectDead(t, pids+rest())
		}
	}
	for name, end := range ends {
		t.Run(name, end)
	}
}

func TestKillsReachTheWholeSession(t *testing.T) {
	a := guesttest.New(t)
	for name, script := range jobs {
		t.Run(name, func(t *testing.T) {
			t.Run("context", func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				c := guest.Command(a, "bash", "-c", script)
				pids, rest := start(t, ctx, c)
				cancel()
				if err := within(t, c.Wait); !errors.Is(err, context.Canceled) {
					t.Errorf("error %v", err)
				}
				expectDead(t, pids+rest())
			})
			t.Run("signal", func(t *testing.T) {
				c := guest.Command(a, "bash", "-c", script)
				pids, rest := start(t, t.Context(), c)
				if err := c.Signal(t.Context(), syscall.SIGKILL); err != nil {
					t.Error(err)
				}
				within(t, c.Wait)
				expectDead(t, pids+rest())
			})
		})
	}
}

func TestTheAgentsEndIsItsCommandsEnd(t *testing.T) {
	var pids string
	var rest func() string
	var c *guest.Cmd
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	t.Run("agent", func(t *testing.T) {
		c = guest.Command(guesttest.New(t), "bash", "-c", jobs["jobs in groups of their own"])
		pids, rest = start(t, ctx, c)
	})
	cancel()
	within(t, c.Wait)
	expectDead(t, pids+rest())
}

func TestOtherSignalsGoToTheProcessGroup(t *testing.T) {
	c := guest.Command(guesttest.New(t), "bash", "-c", `
trap 'echo leader' USR1
set -m; sleep 1000 & job=$!; set +m
bash -c 'trap "echo child; exit" USR1; echo ready; while :; do sleep 0.01; done' & child=$!
while kill -0 $child 2>/dev/null; do sleep 0.01; done
kill -KILL $job && echo job lived`)
	_, rest := start(t, t.Context(), c)
	if err := c.Signal(t.Context(), syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	if err := within(t, c.Wait); err != nil {
		t.Error(err)
	}
	said := rest()
	for _, want := range []string{"leader\n", "child\n", "job lived\n"} {
		if !strings.Contains(said, want) {
			t.Errorf("%q lacks %q", said, want)
		}
	}
}
