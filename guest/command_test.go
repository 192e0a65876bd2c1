//go:build linux

package guest_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tangle-network/microvm-runtime/guest"
	"github.com/tangle-network/microvm-runtime/guest/guesttest"
)

func TestOutput(t *testing.T) {
	a := guesttest.New(t)
	for _, tc := range []struct {
		name   string
		set    func(*guest.Cmd)
		script string
		want   string
	}{
		{"standard output only", nil, "echo out; echo err >&2", "out\n"},
		{"environment", func(c *guest.Cmd) { c.Env = []string{"A=b c", "HOME=/nowhere"} }, `echo "$A $HOME"`, "b c /nowhere\n"},
		{"directory", func(c *guest.Cmd) { c.Dir = "/usr" }, "pwd", "/usr\n"},
		{"standard input", func(c *guest.Cmd) { c.Stdin = strings.NewReader("in") }, "cat; echo end", "inend\n"},
		{"no standard input", nil, "cat; echo end", "end\n"},
		{"its own session", nil, `test "$(ps -o sid= -p $$ | tr -d ' ')" = $$ && echo yes`, "yes\n"},
		{"nothing of the agent's environment", nil, "env | grep -c GOCOVERDIR; true", "0\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := guest.Command(a, "sh", "-c", tc.script)
			if tc.set != nil {
				tc.set(c)
			}
			out, err := c.Output(t.Context())
			if err != nil || string(out) != tc.want {
				t.Errorf("output %q, error %v; want %q", out, err, tc.want)
			}
		})
	}
}

func TestExits(t *testing.T) {
	a := guesttest.New(t)
	for _, tc := range []struct {
		name, script string
		timeout      time.Duration
		want         guest.ExitError
	}{
		{"a status", "exit 7", 0, guest.ExitError{Code: 7}},
		{"a signal", "kill -TERM $$", 0, guest.ExitError{Signal: int(syscall.SIGTERM)}},
		{"a time-out takes the whole session", "sleep 100 & wait", 50 * time.Millisecond, guest.ExitError{Signal: int(syscall.SIGKILL), TimedOut: true}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := guest.Command(a, "sh", "-c", tc.script)
			c.Timeout = tc.timeout
			err := c.Run(t.Context())
			got := (*guest.ExitError)(nil)
			if !errors.As(err, &got) || got.Code != tc.want.Code || got.Signal != tc.want.Signal || got.TimedOut != tc.want.TimedOut {
				t.Errorf("error %v, want %v", err, &tc.want)
			}
		})
	}
	if _, err := guest.Command(a, "sh", "-c", "echo why >&2; exit 1").Output(t.Context()); err == nil {
		t.Error("no error")
	} else if exit := (*guest.ExitError)(nil); !errors.As(err, &exit) || string(exit.Stderr) != "why\n" {
		t.Errorf("error %v without its standard error", err)
	}
}

func TestRefusals(t *testing.T) {
	a := guesttest.New(t)
	for _, tc := range []struct {
		name string
		cmd  *guest.Cmd
		set  func(*guest.Cmd)
		text string
	}{
		{"no such program", guest.Command(a, "no-such-program"), nil, `"no-such-program" is not in PATH`},
		{"no such path", guest.Command(a, "/no/such"), nil, "is not there"},
		{"no such directory", guest.Command(a, "true"), func(c *guest.Cmd) { c.Dir = "/no/such" }, `"/no/such" is not there`},
		{"no such user", guest.Command(a, "true"), func(c *guest.Cmd) { c.User = "nobody-has-this" }, "not known"},
		{"no such group", guest.Command(a, "true"), func(c *guest.Cmd) { c.User = "0:nobody-has-this" }, "not known"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.set != nil {
				tc.set(tc.cmd)
			}
			err := tc.cmd.Run(t.Context())
			if !errors.Is(err, guest.ErrNotFound) || !strings.Contains(err.Error(), tc.text) {
				t.Errorf("error %v, want one that says %q", err, tc.text)
			}
		})
	}
	if err := guest.Command(a, "true").Run(t.Context()); err != nil {
		t.Errorf("a good one: %v", err)
	}
}

// noise is data that no shift of itself equals.
func noise(n int) []byte {
	data := make([]byte, n)
	rand.NewChaCha8([32]byte{1}).Read(data)
	return data
}

func TestBigFileThereAndBack(t *testing.T) {
	data := noise(64 << 20)
	c := guest.Command(guesttest.New(t), "cat")
	c.Stdin = bytes.NewReader(data)
	out, err := c.Output(t.Context())
	if err != nil || sha256.Sum256(out) != sha256.Sum256(data) {
		t.Errorf("%d bytes came back of %d, error %v", len(out), len(data), err)
	}
}

func TestCutConnectionsAreHidden(t *testing.T) {
	a := guesttest.New(t)
	data := noise(8 << 20)
	c := guest.Command(a, "sh", "-c", "tee /dev/stderr")
	var out, errs bytes.Buffer
	c.Stdin, c.Stdout, c.Stderr = bytes.NewReader(data), &out, &errs
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	stop, done := make(chan struct{}), make(chan int)
	go func() {
		cuts := 0
		for {
			select {
			case <-stop:
				done <- cuts
				return
			case <-time.After(time.Duration(rand.IntN(30)) * time.Millisecond):
				cuts += a.Cut()
			}
		}
	}()
	err := c.Wait()
	close(stop)
	if cuts := <-done; cuts == 0 {
		t.Error("nothing was cut")
	}
	want := sha256.Sum256(data)
	if err != nil || sha256.Sum256(out.Bytes()) != want || sha256.Sum256(errs.Bytes()) != want {
		t.Errorf("%d and %d bytes came of %d, error %v", out.Len(), errs.Len(), len(data), err)
	}
}

func TestStalledReaderLosesNothing(t *testing.T) {
	data := noise(4 << 20)
	c := guest.Command(guesttest.New(t), "cat")
	c.Stdin = bytes.NewReader(data)
	r, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	first := make([]byte, 1)
	if _, err := io.ReadFull(r, first); err != nil {
		t.Fatal(err)
	}
	time.Sleep(3 * time.Second) // longer than what a silent descendant is waited for
	rest, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(append(first, rest...), data) {
		t.Errorf("%d bytes of %d, error %v", len(rest)+1, len(data), err)
	}
	if err := c.Wait(); err != nil {
		t.Error(err)
	}
}

func TestFiftyAtOnce(t *testing.T) {
	a := guesttest.New(t)
	var running sync.WaitGroup
	for i := range 50 {
		running.Go(func() {
			out, err := guest.Command(a, "sh", "-c", fmt.Sprintf("echo %d; exit %d", i, i%2)).Output(t.Context())
			exit := (*guest.ExitError)(nil)
			if string(out) != fmt.Sprintln(i) || errors.As(err, &exit) != (i%2 == 1) {
				t.Errorf("command %d: %q, %v", i, out, err)
			}
		})
	}
	running.Wait()
}

func TestContextKills(t *testing.T) {
	a := guesttest.New(t)
	ctx, cancel := context.WithCancel(t.Context())
	c := guest.Command(a, "sh", "-c", "echo $$; exec sleep 1000")
	r, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(ctx); err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Fscan(r, &pid); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := c.Wait(); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	for begin := time.Now(); syscall.Kill(pid, 0) == nil; time.Sleep(time.Millisecond) {
		if time.Since(begin) > 10*time.Second {
			t.Fatal("the command lives")
		}
	}
}

func TestSignal(t *testing.T) {
	c := guest.Command(guesttest.New(t), "sh", "-c", "trap 'echo caught; exit 3' USR1; echo ready; while :; do sleep 0.01; done")
	r, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(r, make([]byte, len("ready\n"))); err != nil {
		t.Fatal(err)
	}
	if err := c.Signal(t.Context(), syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	rest, _ := io.ReadAll(r)
	exit := (*guest.ExitError)(nil)
	if err := c.Wait(); !errors.As(err, &exit) || exit.Code != 3 || string(rest) != "caught\n" {
		t.Errorf("error %v after %q", err, rest)
	}
}

func TestDescendantThatStaysIsNotWaitedForForEver(t *testing.T) {
	out, err := guest.Command(guesttest.New(t), "sh", "-c", "sleep 60 & echo out").Output(t.Context())
	if err != nil || string(out) != "out\n" {
		t.Errorf("output %q, error %v", out, err)
	}
}

func TestWaitAndHealth(t *testing.T) {
	a := guesttest.New(t)
	if err := guest.Wait(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	health, err := guest.GetHealth(t.Context(), a)
	if err != nil || health.Protocol != 1 || health.Uptime < health.Ready {
		t.Errorf("health %+v, error %v", health, err)
	}
	if err := guest.Sync(t.Context(), a); err != nil {
		t.Error(err)
	}
	if err := guest.Shutdown(t.Context(), a); !errors.Is(err, guest.ErrDenied) {
		t.Errorf("an agent that is not the first process: %v", err)
	}
}
