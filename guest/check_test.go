//go:build linux

package guest

import (
	"context"
	"errors"
	"math"
	"net"
	"strings"
	"testing"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/guest/guesttest"
)

func TestNonsenseIsInvalidAndNotSent(t *testing.T) {
	a := guesttest.New(t)
	for _, tc := range []struct {
		name, field string
		cmd         *Cmd
	}{
		{"no program", "Cmd.Args", &Cmd{}},
		{"an empty program", "Cmd.Args", Command(nil, "")},
		{"a negative time-out", "Cmd.Timeout", &Cmd{Args: []string{"true"}, Timeout: -1}},
		{"a terminal without rows", "TTY.Rows", &Cmd{Args: []string{"true"}, TTY: &TTY{Cols: 80}}},
		{"a terminal too wide", "TTY.Cols", &Cmd{Args: []string{"true"}, TTY: &TTY{Rows: 1, Cols: 1 << 16}}},
		{"a variable without a value", "Cmd.Env", &Cmd{Args: []string{"true"}, Env: []string{"A"}}},
		{"a variable without a name", "Cmd.Env", &Cmd{Args: []string{"true"}, Env: []string{"=secret"}}},
		{"a variable with a NUL byte", "Cmd.Env \"TOKEN\"", &Cmd{Args: []string{"true"}, Env: []string{"TOKEN=secret\x00"}}},
		{"an argument that is no UTF-8", "Cmd.Args", &Cmd{Args: []string{"true", "\xff"}}},
		{"an argument with a NUL byte", "Cmd.Args", &Cmd{Args: []string{"true", "a\x00"}}},
		{"a directory with a NUL byte", "Cmd.Dir", &Cmd{Args: []string{"true"}, Dir: "/\x00"}},
		{"a user with a NUL byte", "Cmd.User", &Cmd{Args: []string{"true"}, User: "\x00"}},
		{"more than the agent takes", "", &Cmd{Args: []string{"true", strings.Repeat("a", 1<<20)}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.cmd.dialer = dialled(func() { t.Error("the agent was asked") })
			err := tc.cmd.Run(t.Context())
			if !errors.Is(err, microvm.ErrInvalid) || !strings.Contains(err.Error(), tc.field) || strings.Contains(err.Error(), "secret") {
				t.Errorf("error %v, want one of %s", err, tc.field)
			}
		})
	}
	good := &Cmd{Args: []string{"printenv", "A"}, Env: []string{"A=ü="}, Timeout: math.MaxInt64, Dir: "/", dialer: a}
	if out, err := good.Output(t.Context()); err != nil || string(out) != "ü=\n" {
		t.Errorf("a good one: %q, %v", out, err)
	}
}

// dialled tells that a connection was asked for.
type dialled func()

func (d dialled) Dial(context.Context, uint32) (net.Conn, error) {
	d()
	return nil, microvm.ErrState
}

func TestTimeoutIsRoundedUp(t *testing.T) {
	for d, want := range map[time.Duration]int64{
		0: 0, 1: 1, 500 * time.Microsecond: 1, time.Millisecond: 1, time.Millisecond + 1: 2, math.MaxInt64: math.MaxInt64/1_000_000 + 1,
	} {
		if got := milliseconds(d); got != want {
			t.Errorf("%v is %d ms, want %d", d, got, want)
		}
	}
	c := Command(guesttest.New(t), "sleep", "1000")
	c.Timeout = 500 * time.Microsecond
	exit := (*ExitError)(nil)
	if err := c.Run(t.Context()); !errors.As(err, &exit) || !exit.TimedOut {
		t.Errorf("half a millisecond: %v", err)
	}
}

func TestCleanLetsOnlyPrintableTextThrough(t *testing.T) {
	for text, want := range map[string]string{
		"plain ümlaut 漢字": "plain ümlaut 漢字", "\x1b[2J": "?[2J", "a\nb\tc": "a?b?c", "del\x7f": "del?",
		"\u009b2J": "?2J", "\u0080\u009f": "??", "\u202egnp.exe": "?gnp.exe", "\u200b": "?", "\u2028": "?", "\xff": "?", "\uFFFD": "?", "\U000e0041": "?",
	} {
		if got := clean(text); got != want {
			t.Errorf("%q became %q, want %q", text, got, want)
		}
	}
	if got := clean(strings.Repeat("ü", 1000)); len(got) > 501 {
		t.Errorf("%d bytes are left of a long text", len(got))
	}
}
