//go:build linux

package lab

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/testing/leak"
)

const fakeQEMU = "qemu-system-x86_64"

func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == fakeQEMU {
		os.Exit(beQEMU())
	}
	os.Exit(leak.Main(m))
}

// beQEMU is a QEMU whose lab does what $LAB_DOES says.
func beQEMU() int {
	var events, console string
	for _, arg := range os.Args[1:] {
		if path, ok := strings.CutPrefix(arg, "socket,id=events,path="); ok {
			events = path
		}
		if path, ok := strings.CutPrefix(arg, "file:"); ok {
			console = path
		}
	}
	os.WriteFile(console, []byte("a last word\n"), 0o600)
	does := os.Getenv("LAB_DOES")
	if does == "die" {
		fmt.Fprintln(os.Stderr, "no such machine")
		return 1
	}
	if does != "never connect" {
		conn, err := net.Dial("unix", events)
		if err != nil {
			return 2
		}
		fmt.Fprintln(conn, `{"boot":"3.1"}`)
		switch does {
		case "end":
			fmt.Fprintln(conn, `{"exit":0}`)
			return bye(conn)
		case "panic":
			os.WriteFile(console, []byte("[  134.4] Kernel panic - not syncing: Fatal exception in interrupt\n"), 0o600)
			return bye(conn)
		case "power off":
			return bye(conn)
		}
	}
	syscall.Kill(os.Getpid(), syscall.SIGSTOP)
	return 3
}

// bye ends when all has been heard.
func bye(conn net.Conn) int {
	conn.(*net.UnixConn).CloseWrite()
	io.Copy(io.Discard, conn)
	return 0
}

// TestQEMU runs labs that end, die, panic, or stand still: a process that is stopped, which nothing but SIGKILL ends.
func TestQEMU(t *testing.T) {
	bin := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, filepath.Join(bin, fakeQEMU)); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin)
	cpus, err := usableCPUs()
	if err != nil {
		t.Fatal(err)
	}
	const short, long = 100 * time.Millisecond, time.Minute
	for does, c := range map[string]struct {
		patience patience
		want     []string // Of the error; none when there is none.
	}{
		"end":           {patience{long, long, long}, nil},
		"panic":         {patience{long, long, long}, []string{"the lab's host panicked in the-job", "Fatal exception"}},
		"die":           {patience{long, long, long}, []string{"ended before its boot (QEMU: exit status 1)", "no such machine", "a last word"}},
		"power off":     {patience{long, long, long}, []string{"it ended in the-job"}}, // by itself: that is no fault of the emulator's
		"never connect": {patience{short, long, long}, []string{"before its boot"}},
		"stand still":   {patience{long, short, long}, []string{"in the-job", "a last word"}},
	} {
		t.Run(does, func(t *testing.T) {
			t.Setenv("LAB_DOES", does)
			options := Options{Jobs: []Job{{Name: "the-job", Timeout: time.Minute}}, Event: func(Event) {}}
			l := &lab{Options: options, patience: c.patience, share: &share{queue: newQueue(1), job: NoJob}, cpu: cpus[0], dir: t.TempDir()}
			err := l.run(t.Context())
			if _, halted := errors.AsType[*haltError](err); halted != (c.want != nil && does != "power off") || (err == nil) != (c.want == nil) {
				t.Fatalf("%v, want %q", err, c.want)
			}
			for _, text := range c.want {
				if !strings.Contains(err.Error(), text) {
					t.Errorf("%v lacks %q", err, text)
				}
			}
		})
	}
}
