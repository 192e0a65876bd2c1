//go:build linux

package vmm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

func start(t *testing.T, script string) *Process {
	t.Helper()
	p, err := Start(Command{Path: "/bin/sh", Args: []string{"-c", script}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { end(t, p) })
	return p
}

func end(t *testing.T, p *Process) {
	t.Helper()
	if err := p.Kill(); err != nil && !errors.Is(err, os.ErrClosed) {
		t.Error(err)
	} else if err == nil {
		<-p.Done()
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}

func TestStatusIsTheSameForAllCallers(t *testing.T) {
	for script, want := range map[string]Status{
		"exit 0":        {Known: true},
		"exit 148":      {Known: true, Code: 148},
		"kill -9 $$":    {Known: true, Signal: 9},
		"kill -TERM $$": {Known: true, Signal: 15},
	} {
		p := start(t, script)
		for range 3 {
			if got, err := p.Wait(t.Context()); err != nil || got != want {
				t.Errorf("%s: %+v, %v; want %+v", script, got, err, want)
			}
		}
		if err := p.Kill(); err != nil {
			t.Errorf("%s: kill of one that has ended: %v", script, err)
		}
	}
}

func TestWaitObeysItsContext(t *testing.T) {
	p := start(t, "exec sleep 1000")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.Wait(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("wait: %v", err)
	}
}

func TestChildIsAloneInItsSession(t *testing.T) {
	p := start(t, "exec sleep 1000")
	pid := p.Identity().PID
	if group, err := syscall.Getpgid(pid); err != nil || group != pid {
		t.Errorf("process group %d of %d, %v", group, pid, err)
	}
}

func TestOpenTakesNoOtherProcess(t *testing.T) {
	p := start(t, "exec sleep 1000")
	good := p.Identity()
	other, boot, gone := good, good, good
	other.StartTime++
	boot.BootID = "another"
	gone.PID = 1 << 22 // above pid_max
	for name, identity := range map[string]Identity{"start time": other, "boot": boot, "pid": gone} {
		if _, err := Open(identity); !errors.Is(err, ErrGone) {
			t.Errorf("%s: %v, want ErrGone", name, err)
		}
	}
	foreign, old := good, good
	foreign.PIDNamespace++
	old.PIDNamespace = 0 // from before it was kept
	if _, err := Open(foreign); !errors.Is(err, ErrForeign) || errors.Is(err, ErrGone) || !Runs(foreign) {
		t.Errorf("another namespace's: %v, want ErrForeign, and that nothing is known", err)
	}
	foreign.BootID = "another"
	if _, err := Open(foreign); !errors.Is(err, ErrGone) || Runs(foreign) {
		t.Errorf("another namespace's of another boot: %v, want ErrGone", err)
	}
	if err := Find(old); err != nil {
		t.Errorf("an identity of before: %v", err)
	}
	adopted, err := Open(good)
	if err != nil {
		t.Fatal(err)
	}
	defer adopted.Close()
	if err := adopted.Kill(); err != nil {
		t.Fatal(err)
	}
	if status, err := adopted.Wait(t.Context()); err != nil || status.Known && status.Signal != int(syscall.SIGKILL) {
		t.Errorf("adopted: %+v, %v; want that it was killed, or an unknown status", status, err)
	}
	if status, err := p.Wait(t.Context()); err != nil || status.Signal != int(syscall.SIGKILL) {
		t.Errorf("child: %+v, %v", status, err)
	}
	if _, err := Open(good); !errors.Is(err, ErrGone) {
		t.Errorf("after its end: %v, want ErrGone", err)
	}
}

func TestCloseLeavesTheProcess(t *testing.T) {
	p := start(t, "exec sleep 1000")
	if err := errors.Join(p.Close(), p.Close()); err != nil {
		t.Fatal(err)
	}
	if err := p.Kill(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("kill after close: %v", err)
	}
	adopted, err := Open(p.Identity())
	if err != nil {
		t.Fatalf("it went with Close: %v", err)
	}
	end(t, adopted)
}

func TestStartOfNothing(t *testing.T) {
	if _, err := Start(Command{Path: "/nonexistent"}); !errors.Is(err, exec.ErrNotFound) && !errors.Is(err, os.ErrNotExist) {
		t.Errorf("start: %v", err)
	}
}

// TestNoCoreDump: whatever this process's own limit is.
func TestNoCoreDump(t *testing.T) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_CORE, &limit); err != nil {
		t.Fatal(err)
	}
	open := limit
	open.Cur = open.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_CORE, &open); err != nil {
		t.Fatal(err)
	}
	defer syscall.Setrlimit(syscall.RLIMIT_CORE, &limit)
	p := start(t, "exec sleep 1000")
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", p.Identity().PID))
	if err != nil {
		t.Fatal(err)
	}
	if limits := strings.Join(strings.Fields(string(text)), " "); !strings.Contains(limits, "Max core file size 1 1 bytes") && open.Max > 0 {
		t.Errorf("%s", text)
	}
}
