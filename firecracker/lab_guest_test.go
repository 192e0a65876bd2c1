//go:build linux

package firecracker

import (
	"bytes"
	"errors"
	"io"
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
