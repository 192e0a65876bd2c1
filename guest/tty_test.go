//go:build linux

package guest_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"testing"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/guest"
	"github.com/tangle-network/microvm-runtime/guest/guesttest"
)

// typist sits at a terminal.
type typist struct {
	t   *testing.T
	cmd *guest.Cmd
	in  io.WriteCloser
	out chan byte
	saw strings.Builder
}

// sit starts a command, or attaches to one, at a terminal of 24 rows and 80 columns.
func sit(t *testing.T, ctx context.Context, c *guest.Cmd) *typist {
	t.Helper()
	c.TTY = &guest.TTY{Rows: 24, Cols: 80}
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(ctx); err != nil {
		t.Fatal(err)
	}
	y := &typist{t: t, cmd: c, in: in, out: make(chan byte, 1<<20)}
	go func() {
		defer close(y.out)
		reader := bufio.NewReader(out)
		for {
			b, err := reader.ReadByte()
			if err != nil {
				return
			}
			y.out <- b
		}
	}()
	t.Cleanup(func() { in.Close() })
	return y
}

func (y *typist) types(text string) {
	y.t.Helper()
	if _, err := io.WriteString(y.in, text); err != nil {
		y.t.Fatal(err)
	}
}

// expect reads until the pattern was seen, and returns its first group.
func (y *typist) expect(pattern string) string {
	y.t.Helper()
	wanted := regexp.MustCompile(pattern)
	for timeout := time.After(20 * time.Second); ; {
		if found := wanted.FindStringSubmatchIndex(y.saw.String()); found != nil {
			text := y.saw.String()
			y.saw.Reset()
			y.saw.WriteString(text[found[1]:])
			if len(found) > 2 {
				return text[found[2]:found[3]]
			}
			return text[found[0]:found[1]]
		}
		select {
		case b, ok := <-y.out:
			if !ok {
				y.t.Fatalf("it ended before %q: %q", pattern, y.saw.String())
			}
			y.saw.WriteByte(b)
		case <-timeout:
			y.t.Fatalf("waiting for %q: %q", pattern, y.saw.String())
		}
	}
}

// shell is a shell without a prompt of its own, so that what it says is known.
func shell(a *guesttest.Agent) *guest.Cmd {
	c := guest.Command(a, "bash", "--norc", "--noprofile", "--noediting", "-i")
	c.Env = []string{"PS1=> ", "HISTFILE="}
	return c
}

func TestTerminal(t *testing.T) {
	a := guesttest.New(t)
	y := sit(t, t.Context(), shell(a))
	y.expect("> ")
	y.types("tty; test -t 0 && test -t 1 && test -t 2 && echo all of t''hem; echo $TERM; echo to /dev/t''ty > /dev/tty\n")
	for _, want := range []string{`/dev/pts/\d+\r`, "all of them\r", "xterm\r", "to /dev/tty\r"} {
		y.expect(want)
	}
	y.types("stty size\n")
	y.expect("24 80\r")
	if err := y.cmd.Resize(t.Context(), 50, 132); err != nil {
		t.Fatal(err)
	}
	y.types("stty size\n")
	y.expect("50 132\r")
	y.types("exit 9\n")
	err := within(t, y.cmd.Wait)
	if exit := (*guest.ExitError)(nil); !errors.As(err, &exit) || exit.Code != 9 {
		t.Errorf("error %v", err)
	}
}

func TestTerminalControlsJobs(t *testing.T) {
	y := sit(t, t.Context(), shell(guesttest.New(t)))
	y.expect("> ")
	y.types("sh -c 'echo u\"\"p; exec sleep 1000'; echo status $?\n")
	y.expect("up\r")
	y.types("\x03")
	y.expect(`\^C`)
	y.types("echo status $?\n")
	y.expect("status 130\r")
	y.types("sh -c 'echo u\"\"p; exec sleep 1001'\n")
	y.expect("up\r")
	y.types("\x1a")
	y.expect(`Stopped +sh -c`)
	y.types("jobs -l\n")
	y.expect(`\[1\]\+ +\d+ Stopped`)
	y.types("bg; kill %1; wait %1; echo status $?\n")
	y.expect("status 143\r")
	y.types("trap 'stty size' WINCH; echo s''et\n")
	y.expect("set\r")
	if err := y.cmd.Resize(t.Context(), 11, 22); err != nil {
		t.Fatal(err)
	}
	y.types("\n\n")
	y.expect("11 22\r")
	y.types("sh -c 'echo u\"\"p; exec cat'; echo status $?\n")
	y.expect("up\r\n")
	y.types("line\n")
	y.expect("line\r\nline\r\n")
	y.types("\x04")
	y.expect("status 0\r")
	y.types("\x04")
	if err := within(t, y.cmd.Wait); err != nil {
		t.Error(err)
	}
}

func TestTerminalOverCutConnections(t *testing.T) {
	a := guesttest.New(t)
	y := sit(t, t.Context(), shell(a))
	y.expect("> ")
	for i := range 20 {
		if a.Cut() == 0 {
			t.Error("nothing was cut")
		}
		y.types(fmt.Sprintf("echo number $((%d+1000))\n", i))
		y.expect(fmt.Sprintf("number %d\r", 1000+i))
		if err := y.cmd.Resize(t.Context(), 100+i, 200); err != nil {
			t.Fatal(err)
		}
		a.Cut()
		for begin := time.Now(); ; { // the size may come after what is typed
			y.types("stty size\n")
			if y.expect(`(\d+) \d+\r`) == fmt.Sprint(100+i) {
				break
			}
			if time.Since(begin) > 20*time.Second {
				t.Fatal("the size does not come")
			}
		}
	}
}

func TestTerminalIsReadToItsEnd(t *testing.T) {
	a := guesttest.New(t)
	for range 10 {
		c := guest.Command(a, "sh", "-c", "stty -opost; i=0; while [ $i -lt 20000 ]; do echo $i; i=$((i+1)); done")
		c.TTY = &guest.TTY{Rows: 24, Cols: 80}
		out, err := c.Output(t.Context())
		var want bytes.Buffer
		for i := range 20_000 {
			fmt.Fprintln(&want, i)
		}
		if err != nil || sha256.Sum256(out) != sha256.Sum256(want.Bytes()) {
			t.Fatalf("%d bytes of %d, %v", len(out), want.Len(), err)
		}
	}
	// All that the program has of its terminal may be closed for a while.
	c := guest.Command(a, "sh", "-c", "t=$(tty); exec </dev/null >/dev/null 2>&1; sleep 0.1; echo again >/dev/tty")
	c.TTY = &guest.TTY{Rows: 24, Cols: 80}
	if out, err := c.Output(t.Context()); err != nil || string(out) != "again\r\n" {
		t.Errorf("%q, %v", out, err)
	}
}

func TestContextKillsWhatIsAtATerminal(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	y := sit(t, ctx, shell(guesttest.New(t)))
	y.expect("> ")
	y.types("trap '' HUP; sleep 1000 & echo pid $! pid $$ .\n")
	pids := y.expect(`pid (\d+ pid \d+) \.\r`)
	cancel()
	if err := within(t, y.cmd.Wait); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	expectDead(t, strings.ReplaceAll(pids, "pid", ""))
}

func TestATerminalIsLeftAndTakenUpAgain(t *testing.T) {
	a := guesttest.New(t)
	c := shell(a)
	c.ID, c.Detached, c.TTY = "shell", true, &guest.TTY{Rows: 24, Cols: 80}
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if list, err := guest.List(t.Context(), a); err != nil || len(list) != 1 || !list[0].TTY {
		t.Errorf("%+v, %v", list, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	first := sit(t, ctx, guest.Attach(a, "shell"))
	first.expect("> ")
	first.types("remembered=yes\n")
	first.expect("> ")
	first.in.Close() // no end of the terminal's input
	cancel()
	if err := within(t, first.cmd.Wait); !errors.Is(err, context.Canceled) {
		t.Errorf("the first: %v", err)
	}
	second := sit(t, t.Context(), guest.Attach(a, "shell"))
	if err := second.cmd.Resize(t.Context(), 33, 44); err != nil {
		t.Fatal(err)
	}
	second.types("echo remembered $remembered; stty size; exit\n")
	second.expect("remembered yes\r")
	second.expect("33 44\r")
	if err := within(t, second.cmd.Wait); err != nil {
		t.Error(err)
	}
}

func TestWhatIsNoTerminal(t *testing.T) {
	a := guesttest.New(t)
	c := guest.Command(a, "sleep", "1000")
	c.ID = "pipes"
	if err := c.Resize(t.Context(), 1, 1); err == nil {
		t.Error("a command that is not started was resized")
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if err := c.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if err := c.Resize(t.Context(), 1, 1); !errors.Is(err, microvm.ErrInvalid) {
		t.Errorf("resize: %v", err)
	}
	attached := guest.Attach(a, "pipes")
	attached.TTY = &guest.TTY{Rows: 1, Cols: 1}
	if err := attached.Start(t.Context()); !errors.Is(err, microvm.ErrInvalid) {
		t.Errorf("attach: %v", err)
	}
	cancel()
	if err := within(t, c.Wait); !errors.Is(err, context.Canceled) {
		t.Errorf("the first was replaced: %v", err)
	}
	y := sit(t, t.Context(), guest.Command(a, "cat"))
	if err := y.cmd.Resize(t.Context(), 0, 80); !errors.Is(err, microvm.ErrInvalid) {
		t.Errorf("no rows: %v", err)
	}
	y.types("\x03")
	within(t, y.cmd.Wait)
}
