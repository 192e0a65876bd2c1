//go:build linux

package firecracker

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/guest"
)

func testTerminal(t *testing.T, vm *microvm.VM) {
	c := guest.Command(vm, "sh", "-c", "tty; stty size; read line; stty size; trap 'echo caught; exit 4' INT; echo ready; while :; do sleep 1; done")
	c.User, c.TTY = "nobody", &guest.TTY{Rows: 24, Cols: 80}
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.Resize(t.Context(), 50, 132); err != nil {
		t.Fatal(err)
	}
	io.WriteString(in, "\n")
	var said strings.Builder
	for part := make([]byte, 100); !strings.Contains(said.String(), "ready\r\n"); {
		n, err := out.Read(part)
		if err != nil {
			t.Fatalf("%v after %q", err, said.String())
		}
		said.Write(part[:n])
	}
	io.WriteString(in, "\x03")
	rest, _ := io.ReadAll(out)
	err = c.Wait()
	if exit := (*guest.ExitError)(nil); !errors.As(err, &exit) || exit.Code != 4 || !strings.Contains(string(rest), "caught") {
		t.Errorf("%v after %q", err, rest)
	}
	for _, want := range []string{"/dev/pts/", "50 132\r\n"} {
		if !strings.Contains(said.String(), want) {
			t.Errorf("%q lacks %q", said.String(), want)
		}
	}
}

// testDetached starts what nobody has an eye on, finds it, and reaps it: the agent is its parent, and that of what it leaves behind.
func testDetached(t *testing.T, vm *microvm.VM) {
	c := guest.Command(vm, "bash", "-c", "set -m; sleep 2001 & (sleep 2002 &); echo begin; wait")
	c.ID, c.Detached = "job", true
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	for begin := time.Now(); ; { // that an earlier command's end was heard may come to the agent late
		list, err := guest.List(t.Context(), vm)
		if err == nil && len(list) == 1 && list[0].ID == "job" && list[0].State == guest.StateRunning {
			break
		}
		if err != nil || time.Since(begin) > 20*time.Second {
			t.Fatalf("%+v, %v", list, err)
		}
	}
	for begin := time.Now(); sh(t, vm, "pgrep -c -f '^sleep 200[12]' || true") != "2"; {
		if time.Since(begin) > 20*time.Second {
			t.Fatalf("it does not begin: %s", sh(t, vm, "ps ax"))
		}
	}
	if err := c.Signal(t.Context(), syscall.SIGKILL); err != nil {
		t.Error(err)
	}
	if left := sh(t, vm, "pgrep -f '^sleep 200[12]' || true"); left != "" {
		t.Errorf("the session lives: %s", left)
	}
	var out bytes.Buffer
	attached := guest.Attach(vm, "job")
	attached.Stdout = &out
	err := attached.Run(t.Context())
	if exit := (*guest.ExitError)(nil); !errors.As(err, &exit) || exit.Signal != int(syscall.SIGKILL) || out.String() != "begin\n" {
		t.Errorf("%v, %q", err, out.String())
	}
	if u := attached.Exit.Usage; u == nil || u.User+u.System <= 0 || u.MaxRSS <= 0 {
		t.Errorf("usage %+v", u)
	}
}

// testSettings gives the guest variables, a secret and a time, and takes them away again.
func testSettings(t *testing.T, vm *microvm.VM) {
	if err := errors.Join(guest.SetEnv(t.Context(), vm, map[string]string{"FOR_ALL": "a b"}), guest.SetSecret(t.Context(), vm, "key", []byte("s3cr3t\n"))); err != nil {
		t.Fatal(err)
	}
	const look = `echo "$FOR_ALL"; cat /run/microvm/secrets/key; stat -f -c %T /run/microvm/secrets`
	if got := sh(t, vm, look); got != "a b\ns3cr3t\ntmpfs" {
		t.Errorf("it sees %q", got)
	}
	if err := errors.Join(guest.SetEnv(t.Context(), vm, map[string]string{"FOR_ALL": ""}), guest.DeleteSecret(t.Context(), vm, "key")); err != nil {
		t.Error(err)
	}
	if got := sh(t, vm, `echo "${FOR_ALL-none}"; ls /run/microvm/secrets`); got != "none" {
		t.Errorf("it still sees %q", got)
	}
	before := time.Now()
	if _, err := guest.SetClock(t.Context(), vm, time.Date(2031, 5, 6, 12, 0, 0, 0, time.UTC)); err != nil {
		t.Fatal(err)
	}
	if got := sh(t, vm, "date -u +%Y-%m-%dT%H"); got != "2031-05-06T12" {
		t.Errorf("its time is %s", got)
	}
	skew, err := guest.SetClock(t.Context(), vm, time.Now())
	if err != nil || skew < time.Date(2031, 5, 6, 0, 0, 0, 0, time.UTC).Sub(before) {
		t.Errorf("it was ahead by %v, %v", skew, err)
	}
}

// testFS reads the guest's files as an fs.FS.
func testFS(t *testing.T, vm *microvm.VM) {
	fsys := guest.FS(t.Context(), vm, "/etc")
	text, err := fs.ReadFile(fsys, "os-release")
	if want := sh(t, vm, "cat /etc/os-release"); err != nil || strings.TrimSpace(string(text)) != want {
		t.Errorf("%q, %v, want %q", text, err, want)
	}
	entries, err := fs.ReadDir(fsys, ".")
	if want := sh(t, vm, "ls -A /etc | wc -l"); err != nil || strconv.Itoa(len(entries)) != want {
		t.Errorf("%d entries, %v, want %s", len(entries), err, want)
	}
}
