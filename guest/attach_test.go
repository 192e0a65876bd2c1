//go:build linux

package guest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/guest"
	"github.com/tangle-network/microvm-runtime/guest/guesttest"
	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// detach starts a script and leaves it.
func detach(t *testing.T, d guest.Dialer, id, script string) {
	t.Helper()
	c := guest.Command(d, "sh", "-c", script)
	c.ID, c.Detached = id, true
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if err := c.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if c.ID != id {
		t.Errorf("id %q", c.ID)
	}
}

// await waits until the agent's list of commands is as wanted.
func await(t *testing.T, d guest.Dialer, what string, ok func([]guest.Process) bool) []guest.Process {
	t.Helper()
	for begin := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		list, err := guest.List(t.Context(), d)
		if err != nil {
			t.Fatal(err)
		}
		if ok(list) {
			return list
		}
		if time.Since(begin) > 20*time.Second {
			t.Fatalf("waiting for %s: %+v", what, list)
		}
	}
}

func TestADetachedCommandIsLeftAlone(t *testing.T) {
	a := guesttest.New(t)
	marker := filepath.Join(t.TempDir(), "written")
	detach(t, a, "job", fmt.Sprintf("cat; echo begin; head -c %d /dev/zero; echo end >&2; touch %s; exit 7", 2*wire.Window, marker))
	list := await(t, a, "the command", func(list []guest.Process) bool { return len(list) == 1 })
	if p := list[0]; p.ID != "job" || p.State != guest.StateRunning || p.Attached || p.PID == 0 || p.Exit != nil || p.Args[0] != "sh" || !lives(p.PID) {
		t.Errorf("%+v", p)
	}
	if _, err := os.Stat(marker); err == nil {
		t.Error("more than the window was written though nobody reads")
	}
	var out, errs bytes.Buffer
	c := guest.Attach(a, "job")
	c.Stdout, c.Stderr = &out, &errs
	err := within(t, func() error { return c.Run(t.Context()) })
	if exit := (*guest.ExitError)(nil); !errors.As(err, &exit) || exit.Code != 7 {
		t.Errorf("error %v", err)
	}
	if out.Len() != 2*wire.Window+len("begin\n") || !strings.HasPrefix(out.String(), "begin\n") || errs.String() != "end\n" {
		t.Errorf("%d bytes came, and %q", out.Len(), &errs)
	}
	if *c.From != (guest.Offsets{}) || c.Offsets() != (guest.Offsets{Stdout: uint64(out.Len()), Stderr: 4}) {
		t.Errorf("from %+v to %+v", *c.From, c.Offsets())
	}
	await(t, a, "its oblivion", func(list []guest.Process) bool { return len(list) == 0 })
	if err := guest.Attach(a, "job").Run(t.Context()); !errors.Is(err, guest.ErrNotFound) {
		t.Errorf("once more: %v", err)
	}
}

func TestWhatADetachedCommandIsNot(t *testing.T) {
	a := guesttest.New(t)
	for field, set := range map[string]func(*guest.Cmd){
		"Cmd.Stdin": func(c *guest.Cmd) { c.Stdin = strings.NewReader("") }, "Cmd.Stdout": func(c *guest.Cmd) { c.Stdout = io.Discard },
		"Cmd.Stderr": func(c *guest.Cmd) { c.Stderr = io.Discard }, "Cmd.ID": func(c *guest.Cmd) { c.ID = "a b" },
	} {
		c := guest.Command(a, "true")
		c.Detached = true
		set(c)
		if err := c.Start(t.Context()); !errors.Is(err, microvm.ErrInvalid) || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
	c := guest.Command(a, "sleep", "1000")
	c.Detached = true
	if err := c.Run(t.Context()); err == nil {
		t.Error("Run of a detached command")
	}
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err == nil || !strings.Contains(err.Error(), "Attach") {
		t.Errorf("Wait: %v", err)
	}
	if err := c.Signal(t.Context(), syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	err := within(t, func() error { return guest.Attach(a, c.ID).Run(t.Context()) })
	if exit := (*guest.ExitError)(nil); !errors.As(err, &exit) || exit.Signal != int(syscall.SIGTERM) {
		t.Errorf("%v", err)
	}
}

func TestAnIDIsTaken(t *testing.T) {
	a := guesttest.New(t)
	detach(t, a, "taken", "sleep 1000")
	for _, detached := range []bool{false, true} {
		c := guest.Command(a, "true")
		c.ID, c.Detached = "taken", detached
		if err := c.Start(t.Context()); !errors.Is(err, microvm.ErrExists) {
			t.Errorf("detached %v: %v", detached, err)
		}
	}
	c := guest.Command(a, "true")
	c.ID = "free"
	if err := c.Run(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestAttachGoesOnWithInputAndOutput(t *testing.T) {
	a := guesttest.New(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	first := guest.Command(a, "sh", "-c", "cat; echo $?")
	first.ID = "cat"
	in, err := first.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := first.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Start(ctx); err != nil {
		t.Fatal(err)
	}
	io.WriteString(in, "one\n")
	if _, err := io.ReadFull(out, make([]byte, 4)); err != nil {
		t.Fatal(err)
	}

	second := guest.Attach(a, "cat")
	var rest bytes.Buffer
	second.From, second.Stdout = &guest.Offsets{Stdout: 4}, &rest
	more, err := second.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := within(t, first.Wait); !errors.Is(err, guest.ErrReplaced) {
		t.Errorf("the first: %v", err)
	}
	cancel() // the first has nothing to say any more
	io.WriteString(more, "two\n")
	more.Close()
	if err := within(t, second.Wait); err != nil || rest.String() != "two\n0\n" {
		t.Errorf("%q, %v", &rest, err)
	}
}

func TestAttachRefusesWhatIsNotThere(t *testing.T) {
	a := guesttest.New(t)
	detach(t, a, "job", "echo output; sleep 1000")
	if err := guest.Attach(a, "other").Start(t.Context()); !errors.Is(err, guest.ErrNotFound) {
		t.Errorf("another id: %v", err)
	}
	if err := guest.Attach(a, "no id").Start(t.Context()); !errors.Is(err, microvm.ErrInvalid) {
		t.Errorf("no id: %v", err)
	}
	c := guest.Attach(a, "job")
	c.Stdin = strings.NewReader("in")
	if err := c.Start(t.Context()); !errors.Is(err, microvm.ErrInvalid) {
		t.Errorf("a command without input: %v", err)
	}
	c = guest.Attach(a, "job")
	c.From = &guest.Offsets{Stderr: 1}
	if err := c.Start(t.Context()); !errors.Is(err, guest.ErrGone) {
		t.Errorf("what was never written: %v", err)
	}
	read(t, a, "job", nil, "output\n")
	for begin := time.Now(); ; { // the last acknowledgement may be under way; who attaches says it again
		ctx, cancel := context.WithCancel(t.Context())
		c = guest.Attach(a, "job")
		c.From = &guest.Offsets{}
		err := c.Start(ctx)
		cancel()
		if errors.Is(err, guest.ErrGone) {
			break
		}
		if err != nil || time.Since(begin) > 20*time.Second {
			t.Fatalf("what somebody has: %v", err)
		}
		within(t, c.Wait)
	}
	read(t, a, "job", &guest.Offsets{Stdout: 7}, "")
	if list, err := guest.List(t.Context(), a); err != nil || len(list) != 1 || !lives(list[0].PID) {
		t.Errorf("%+v, %v", list, err)
	}
}

// read attaches, reads what is wanted, and leaves.
func read(t *testing.T, d guest.Dialer, id string, from *guest.Offsets, want string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c := guest.Attach(d, id)
	c.From = from
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(ctx); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(want))
	if _, err := io.ReadFull(out, got); err != nil || string(got) != want {
		t.Errorf("%q, %v", got, err)
	}
	for begin := time.Now(); c.Offsets().Stdout != c.From.Stdout+uint64(len(want)); time.Sleep(time.Millisecond) {
		if time.Since(begin) > 20*time.Second {
			t.Fatalf("offsets %+v", c.Offsets())
		}
	}
	cancel()
	within(t, c.Wait)
}

func TestListTellsEnds(t *testing.T) {
	a := guesttest.New(t)
	if list, err := guest.List(t.Context(), a); err != nil || len(list) != 0 {
		t.Errorf("%+v, %v", list, err)
	}
	detach(t, a, "fails", "exit 3")
	detach(t, a, "killed", "kill -TERM $$; "+strings.Repeat(":", 1000))
	list := await(t, a, "both ends", func(list []guest.Process) bool {
		return len(list) == 2 && !slices.ContainsFunc(list, func(p guest.Process) bool { return p.State != guest.StateExited })
	})
	fails, killed := list[0], list[1]
	if fails.ID != "fails" || fails.Exit.Code != 3 || fails.ArgsCut || strings.Join(fails.Args, " ") != "sh -c exit 3" || fails.Started > killed.Started {
		t.Errorf("%+v", fails)
	}
	if killed.ID != "killed" || killed.Exit.Signal != int(syscall.SIGTERM) || !killed.ArgsCut || len(killed.Args) != 3 {
		t.Errorf("%+v", killed)
	}
}

func TestUsageIsTold(t *testing.T) {
	a := guesttest.New(t)
	c := guest.Command(a, "sh", "-c", "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done")
	if err := c.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	idle := guest.Command(a, "true")
	if err := idle.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	busy, none := c.Exit.Usage, idle.Exit.Usage
	if busy == nil || none == nil || busy.User+busy.System <= none.User+none.System || busy.MaxRSS < 1<<19 {
		t.Errorf("%+v, and of true %+v", busy, none)
	}
	c = guest.Command(a, "sh", "-c", "exit 1")
	if err := c.Run(t.Context()); err == nil || c.Exit.Success() || c.Exit.Code != 1 || c.Exit.Usage == nil {
		t.Errorf("%+v, %v", c.Exit, err)
	}
}

// older is an agent without features, which fails the test when it is asked for one.
func older(t *testing.T) scripted {
	return func(conn net.Conn, request *http.Request) {
		defer conn.Close()
		switch request.URL.Path {
		case wire.PathHealth:
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{\"protocol\": 1}")
		case wire.PathExec:
			io.WriteString(conn, switching)
			conn.Write(wire.Append(wire.Append(nil, wire.StdoutEnd, nil), wire.StderrEnd, nil))
			conn.Write(wire.Append(nil, wire.Exited, []byte(`{"code":0}`)))
			io.Copy(io.Discard, conn)
		case wire.PathClock, wire.PathEntropy, wire.PathHostname, wire.PathFreeze, wire.PathThaw, wire.PathRenew, wire.PathDial, wire.PathListen, wire.PathEnv, wire.PathSecrets, wire.PathSecrets + "/a":
			io.WriteString(conn, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
		default:
			t.Errorf("%s %s", request.Method, request.URL)
		}
	}
}

func TestAnOlderAgentIsNotAskedForWhatItLacks(t *testing.T) {
	d := older(t)
	detached, named, terminal := guest.Command(d, "true"), guest.Command(d, "true"), guest.Command(d, "true")
	detached.Detached, named.ID, terminal.TTY = true, "a", &guest.TTY{Rows: 24, Cols: 80}
	for name, ask := range map[string]func() error{
		"attach":     func() error { return guest.Attach(d, "a").Start(t.Context()) },
		"list":       func() error { _, err := guest.List(t.Context(), d); return err },
		"detach":     func() error { return detached.Start(t.Context()) },
		"a terminal": func() error { return terminal.Start(t.Context()) },
		"an id":      func() error { return named.Start(t.Context()) },
		"a tunnel":   func() error { _, err := guest.DialTCP(t.Context(), d, "a:1"); return err },
		"variables":  func() error { return guest.SetEnv(t.Context(), d, map[string]string{"A": "a"}) },
		"a secret":   func() error { return guest.SetSecret(t.Context(), d, "a", nil) },
		"no secret":  func() error { return guest.DeleteSecret(t.Context(), d, "a") },
		"secrets":    func() error { _, err := guest.ListSecrets(t.Context(), d); return err },
		"a listener": func() error { _, err := guest.Listen(t.Context(), d, "a:1"); return err },
	} {
		if err := within(t, ask); !errors.Is(err, microvm.ErrUnsupported) {
			t.Errorf("%s: %v", name, err)
		}
	}
	c := guest.Command(d, "true")
	if err := within(t, func() error { return c.Run(t.Context()) }); err != nil || c.Exit.Usage != nil {
		t.Errorf("what it can: %+v, %v", c.Exit, err)
	}
	health, err := guest.GetHealth(t.Context(), guesttest.New(t))
	if err != nil || !slices.Equal(health.Features, wire.Features()) {
		t.Errorf("%+v, %v", health, err)
	}
}
