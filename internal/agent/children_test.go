//go:build linux

package agent

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tangle-network/microvm-runtime/internal/wire"
)

const patience = 20 * time.Second

// shell starts a script on a server, and returns its process.
func shell(s *Server, script string) (*process, error) {
	return s.start(&wire.Exec{ID: "x", Argv: []string{"sh", "-c", script}})
}

// ended waits for a process's exit.
func ended(p *process) (wire.Exit, error) {
	select {
	case <-p.exited:
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.exit, nil
	case <-time.After(patience):
		return wire.Exit{}, errors.New("the process does not end")
	}
}

// until waits until f is true.
func until(f func() bool) bool {
	for begin := time.Now(); !f(); time.Sleep(time.Millisecond) {
		if time.Since(begin) > patience {
			return false
		}
	}
	return true
}

func TestOrphansAreReapedAndChildrenKept(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), firstHelper+"=1")
	if out, err := cmd.CombinedOutput(); err != nil || len(out) != 0 {
		t.Errorf("%v: %s", err, out)
	}
}

// first is that test's program.
func first() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return err
	}
	s := New(Options{First: true})
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGCHLD)
	go func() {
		for range signals {
			s.Reap()
		}
	}()
	held, err := shell(s, "sleep 1000 & exit 3")
	if err != nil {
		return err
	}
	<-held.child.ended
	for _, script := range []string{"(sleep 0.01 &); exit 4", "for i in 1 2 3 4 5; do (true &); done; exit 4"} {
		p, err := shell(s, script)
		if err != nil {
			return err
		}
		if exit, err := ended(p); err != nil || exit.Code != 4 {
			return fmt.Errorf("%s: %+v, %w", script, exit, err)
		}
	}
	if !until(func() bool { return zombies() == 1 }) {
		return fmt.Errorf("%d zombies, want the one that is held", zombies())
	}
	if s, ok := readStat(held.child.pid); !ok || !s.zombie {
		return fmt.Errorf("the leader of a session that goes on is %+v", s)
	}
	if err := held.signal(syscall.SIGKILL); err != nil {
		return err
	}
	if exit, err := ended(held); err != nil || exit.Code != 3 || exit.Signal != 0 {
		return fmt.Errorf("the one that was held: %+v, %w", exit, err)
	}
	if !until(func() bool { return zombies() == 0 }) {
		return fmt.Errorf("%d zombies", zombies())
	}
	return nil
}

// zombies returns how many children of this process nobody has reaped.
func zombies() (n int) {
	for _, s := range processes() {
		if s.parent == os.Getpid() && s.zombie {
			n++
		}
	}
	return n
}

func TestNoSignalGoesToAPidThatIsFree(t *testing.T) {
	s := New(Options{})
	p, err := shell(s, "exit 0")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ended(p); err != nil {
		t.Fatal(err)
	}
	other := exec.Command("sleep", "1000")
	other.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { other.Process.Kill(); other.Wait() }()
	p.child.pid = other.Process.Pid // as if the number had come round
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		if err := p.signal(sig); err != nil {
			t.Error(err)
		}
	}
	if s, ok := readStat(other.Process.Pid); !ok || s.zombie {
		t.Error("another process was killed")
	}
	live, err := shell(s, "sleep 1000 & wait")
	if err != nil {
		t.Fatal(err)
	}
	if err := live.signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	if exit, err := ended(live); err != nil || exit.Signal != int(syscall.SIGTERM) {
		t.Errorf("a process that lives: %+v, %v", exit, err)
	}
}

func TestParseStat(t *testing.T) {
	for text, want := range map[string]stat{
		"7 (sh) S 1 7 5 0 -1":       {parent: 1, session: 5},
		"7 (a) Z 9 (b) Z 1 7 5 0":   {zombie: true, parent: 1, session: 5},
		"7 (new\nline) Z 2 3 4 0 0": {zombie: true, parent: 2, session: 4},
	} {
		if got, ok := parseStat([]byte(text)); !ok || got != want {
			t.Errorf("%q: %+v, %v", text, got, ok)
		}
	}
	for _, text := range []string{"", "7 (sh)", "7 (sh) S 1 7", "7 (sh) S a b c", "7 sh S 1 7 5", strings.Repeat(")", 100)} {
		if got, ok := parseStat([]byte(text)); ok {
			t.Errorf("%q: %+v", text, got)
		}
	}
}
