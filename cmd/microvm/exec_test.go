//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"slices"
	"syscall"
	"testing"

	"github.com/tangle-network/microvm-runtime/guest"
	"github.com/tangle-network/microvm-runtime/guest/guesttest"
)

// TestASignalIsTheCommandsToHandle ends the context by a signal: the command hears it, and ends as it likes. One that comes before the command runs ends its start.
func TestASignalIsTheCommandsToHandle(t *testing.T) {
	agent := guesttest.New(t)
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		ctx, cancel := context.WithCancelCause(t.Context())
		c := guest.Command(agent, "sh", "-c", `trap 'exit 7' INT TERM; echo ready; while :; do sleep 0.01; done`)
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		begun, ended := 0, 0
		go func() {
			bufio.NewReader(out).ReadString('\n')
			cancel(interrupted{signal})
		}()
		err = passSignals(ctx, c, func(context.Context) func() { begun++; return func() { ended++ } })
		if exit := (*guest.ExitError)(nil); !errors.As(err, &exit) || exit.Code != 7 || begun != 1 || ended != 1 {
			t.Errorf("%v: %v, begun %d, ended %d", signal, err, begun, ended)
		}
	}
	over, cancel := context.WithCancelCause(t.Context())
	cancel(interrupted{syscall.SIGTERM})
	if err := passSignals(over, guest.Command(agent, "sleep", "1000"), nil); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestVariablesOfThisProcess(t *testing.T) {
	t.Setenv("HERE", "a=b")
	if got := ownVariables([]string{"A=1", "HERE", "NOT_HERE", "HERE=2", "B="}); !slices.Equal(got, []string{"A=1", "HERE=a=b", "HERE=2", "B="}) {
		t.Errorf("%q", got)
	}
}
