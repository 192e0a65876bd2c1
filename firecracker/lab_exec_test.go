//go:build linux

package firecracker

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/guest"
)

// Everything that one running machine can show of commands: a boot is dear.
func TestLabExec(t *testing.T) {
	r := newLabRig(t, false)
	vm := r.create(microvm.Spec{})
	r.start(vm)
	for name, test := range map[string]func(*testing.T, *microvm.VM){
		"streams and status": testStreams, "environment, directory and user": testEnvironment, "ends": testEnds, "input": testInput, "64 MiB there and back": test64MiB,
		"a reader that stalls": testStalledReader, "50 at once": testFifty, "the system around": testSystem, "a command that takes all memory": testMemoryHog,
		"a pause in the middle": testPauseInTheMiddle, "another name in the middle": testRenameInTheMiddle, "a terminal": testTerminal, "no caller": testDetached, "connections": testConnections, "variables, secrets and the clock": testSettings, "files": testFS, "a watch": testWatch,
	} {
		t.Run(name, func(t *testing.T) { test(t, vm) })
	}
	t.Run("console", func(t *testing.T) {
		sh(t, vm, "echo to the console > /dev/console")
		r.await(vm, "to the console")
	})
	t.Run("another runtime", func(t *testing.T) {
		if err := r.runtime.Close(); err != nil {
			t.Fatal(err)
		}
		r.open()
		found, err := r.runtime.VM(t.Context(), vm.UID())
		if err != nil {
			t.Fatal(err)
		}
		vm = found
		if got := sh(t, vm, "echo still there"); got != "still there" {
			t.Errorf("%q", got)
		}
	})
	exit := r.stop(vm, microvm.ReasonStopped)
	if exit.Code != 0 && exit.Code != -1 {
		t.Errorf("exit %+v", exit)
	}
}

func testStreams(t *testing.T, vm *microvm.VM) {
	c := guest.Command(vm, "sh", "-c", "echo out; echo err >&2; exit 3")
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	err := c.Run(t.Context())
	exit := (*guest.ExitError)(nil)
	if !errors.As(err, &exit) || exit.Code != 3 || out.String() != "out\n" || errs.String() != "err\n" {
		t.Errorf("%v, out %q, err %q", err, out.String(), errs.String())
	}
	if err := guest.Command(vm, "true").Run(t.Context()); err != nil {
		t.Errorf("true: %v", err)
	}
	if err := guest.Command(vm, "no-such-program").Run(t.Context()); !errors.Is(err, guest.ErrNotFound) {
		t.Errorf("no such program: %v", err)
	}
}

func testEnvironment(t *testing.T, vm *microvm.VM) {
	c := guest.Command(vm, "sh", "-c", `echo "$A $HOME $USER $(pwd) $(id -u):$(id -g)"`)
	c.Env, c.Dir = []string{"A=a b"}, "/usr"
	out, err := c.Output(t.Context())
	if err != nil || string(out) != "a b /root root /usr 0:0\n" {
		t.Errorf("%q, %v", out, err)
	}
	for user, want := range map[string]string{"nobody": "65534:65534", "1000": "1000:", "nobody:root": "65534:0", "1000:7": "1000:7"} {
		c := guest.Command(vm, "sh", "-c", `echo "$(id -u):$(id -g)"; touch /root/x 2>/dev/null && echo root`)
		c.User = user
		out, _ := c.Output(t.Context())
		if !strings.HasPrefix(string(out), want) || strings.Contains(string(out), "root") {
			t.Errorf("user %s is %q, want %q", user, out, want)
		}
	}
	c = guest.Command(vm, "true")
	c.User = "nosuchuser"
	if err := c.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "nosuchuser") {
		t.Errorf("an unknown user: %v", err)
	}
}

func testEnds(t *testing.T, vm *microvm.VM) {
	exit := (*guest.ExitError)(nil)
	if err := guest.Command(vm, "sh", "-c", "kill -TERM $$").Run(t.Context()); !errors.As(err, &exit) || exit.Signal != int(syscall.SIGTERM) {
		t.Errorf("a command that killed itself: %v", err)
	}
	c := guest.Command(vm, "sleep", "1000")
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.Signal(t.Context(), syscall.SIGINT); err != nil {
		t.Error(err)
	}
	if err := c.Wait(); !errors.As(err, &exit) || exit.Signal != int(syscall.SIGINT) {
		t.Errorf("a command that was interrupted: %v", err)
	}
	c = guest.Command(vm, "sh", "-c", "sleep 1001 & wait")
	c.Timeout = 200 * time.Millisecond
	if err := c.Run(t.Context()); !errors.As(err, &exit) || !exit.TimedOut {
		t.Errorf("a command whose time is over: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := guest.Command(vm, "sh", "-c", "sleep 1002 & wait").Run(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a command that was cancelled: %v", err)
	}
	list, err := guest.List(t.Context(), vm)
	if err != nil || slices.ContainsFunc(list, func(p guest.Process) bool { return slices.Contains(p.Args, "sleep 1002 & wait") }) {
		t.Errorf("a command that was cancelled is known still: %+v, %v", list, err)
	}
	for begin := time.Now(); sh(t, vm, "pgrep -f 'sleep 100[012]' || true") != ""; {
		if time.Since(begin) > 10*time.Second {
			t.Fatalf("processes are left: %s", sh(t, vm, "ps ax"))
		}
	}
}

func testInput(t *testing.T, vm *microvm.VM) {
	c := guest.Command(vm, "wc", "-c")
	c.Stdin = strings.NewReader("12345")
	if out, err := c.Output(t.Context()); err != nil || strings.TrimSpace(string(out)) != "5" {
		t.Errorf("%q, %v", out, err)
	}
	if out, err := guest.Command(vm, "cat").Output(t.Context()); err != nil || len(out) != 0 { // no input is an end, not a wait
		t.Errorf("%q, %v", out, err)
	}
}

func test64MiB(t *testing.T, vm *microvm.VM) {
	data := make([]byte, 64<<20)
	rand.Read(data)
	there, back := sha256.Sum256(data), sha256.New()
	c := guest.Command(vm, "cat")
	c.Stdin, c.Stdout = bytes.NewReader(data), back
	if err := c.Run(t.Context()); err != nil || !bytes.Equal(back.Sum(nil), there[:]) {
		t.Errorf("%v, %x came back, want %x", err, back.Sum(nil), there)
	}
}

// stalled is a reader of output that takes nothing until it is told to.
type stalled struct {
	once  sync.Once
	began chan struct{}
	go_   chan struct{}
	bytes int
}

func (s *stalled) Write(p []byte) (int, error) {
	s.once.Do(func() { close(s.began) })
	<-s.go_
	s.bytes += len(p)
	return len(p), nil
}

func testStalledReader(t *testing.T, vm *microvm.VM) {
	const size = 16 << 20
	s := &stalled{began: make(chan struct{}), go_: make(chan struct{})}
	c := guest.Command(vm, "sh", "-c", fmt.Sprintf("head -c %d /dev/zero; echo done > /tmp/stalled", size))
	c.Stdout = s
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-s.began
	for range 3 { // the writer waits: it can't have come to its end
		if got := sh(t, vm, "cat /tmp/stalled 2>/dev/null || true"); got != "" {
			t.Error("the writer went on without its reader")
		}
	}
	close(s.go_)
	if err := c.Wait(); err != nil || s.bytes != size {
		t.Errorf("%v, %d bytes came, want %d", err, s.bytes, size)
	}
	if got := sh(t, vm, "cat /tmp/stalled"); got != "done" {
		t.Errorf("%q", got)
	}
}

func testFifty(t *testing.T, vm *microvm.VM) {
	var group sync.WaitGroup
	for i := range 50 {
		group.Go(func() {
			want := fmt.Sprint("number ", i)
			out, err := guest.Command(vm, "sh", "-c", "sleep 1; echo "+want).Output(t.Context())
			if err != nil || string(out) != want+"\n" {
				t.Errorf("%q, %v", out, err)
			}
		})
	}
	group.Wait()
}

func testSystem(t *testing.T, vm *microvm.VM) {
	for script, want := range map[string]string{
		"stat -f -c %T /": "overlayfs", "stat -f -c %T /proc": "proc", "stat -f -c %T /sys": "sysfs", "stat -f -c %T /dev/shm": "tmpfs", "stat -c %a /tmp": "1777",
		"cat /proc/1/comm": "init", "test -c /dev/hwrng && echo yes": "yes", "cat /sys/class/net/lo/operstate": "unknown",
		"test -d /dev/pts && echo yes": "yes", ". /etc/os-release; echo $ID": "debian", "readlink /dev/stdin": "/proc/self/fd/0",
		"echo x > /usr/bin/written && cat /usr/bin/written": "x",
	} {
		if got := sh(t, vm, script); got != want {
			t.Errorf("%s: %q, want %q", script, got, want)
		}
	}
	// Orphans are reaped by the agent: none stays a zombie.
	sh(t, vm, "for i in 1 2 3 4 5; do (sh -c 'sleep 0.2 & exit 0') ; done")
	for begin := time.Now(); ; {
		zombies := sh(t, vm, "ps -eo stat= | grep -c '^Z' || true")
		if zombies == "0" {
			break
		}
		if time.Since(begin) > 10*time.Second {
			t.Fatalf("%s zombies", zombies)
		}
	}
}

func testMemoryHog(t *testing.T, vm *microvm.VM) {
	err := guest.Command(vm, "python3", "-c", "a=[]\nwhile True: a.append(bytearray(1<<20))").Run(t.Context())
	exit := (*guest.ExitError)(nil)
	if !errors.As(err, &exit) || exit.Signal != int(syscall.SIGKILL) && exit.Code != 1 {
		t.Errorf("a command without bounds: %v", err)
	}
	if exit != nil && exit.Signal != 0 { // else python has seen the end of memory itself
		if kill := awaitEvent(t, vm, guest.EventOOMKill).OOM; kill == nil || kill.PID == 0 || kill.Name != "python3" {
			t.Errorf("the guest tells %+v", kill)
		}
	}
	if got := sh(t, vm, "echo alive"); got != "alive" {
		t.Errorf("%q", got)
	}
}

// testPauseInTheMiddle runs a command that writes all the time over a pause: nothing is lost or doubled.
func testPauseInTheMiddle(t *testing.T, vm *microvm.VM) {
	c := guest.Command(vm, "sh", "-c", "i=0; while [ $i -lt 300 ]; do echo $i; i=$((i+1)); done")
	reader, writer := io.Pipe()
	c.Stdout = writer
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	read := make(chan error, 1)
	go func() {
		_, err := io.Copy(&out, reader)
		read <- err
	}()
	if err := vm.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := vm.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	err := c.Wait()
	writer.Close()
	if err := errors.Join(err, <-read); err != nil {
		t.Fatal(err)
	}
	var want strings.Builder
	for i := range 300 {
		fmt.Fprintln(&want, i)
	}
	if out.String() != want.String() {
		t.Errorf("%d bytes came, want %d", out.Len(), want.Len())
	}
}

func testRenameInTheMiddle(t *testing.T, vm *microvm.VM) {
	c := guest.Command(vm, "sh", "-c", "sleep 0.5; echo same")
	var out bytes.Buffer
	c.Stdout = &out
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := vm.Rename(t.Context(), "other"); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err != nil || out.String() != "same\n" {
		t.Errorf("%q, %v", out.String(), err)
	}
}

// testConnections dials what listens in the guest, and is dialled by the guest.
func testConnections(t *testing.T, vm *microvm.VM) {
	server := guest.Command(vm, "python3", "-c", `
import socket
s = socket.socket(socket.AF_VSOCK); s.bind((socket.VMADDR_CID_ANY, 4000)); s.listen()
print("listening", flush=True)
c, _ = s.accept(); c.sendall(c.recv(100).upper()); c.close()`)
	reader, writer := io.Pipe()
	server.Stdout = writer
	if err := server.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(reader, make([]byte, len("listening\n"))); err != nil {
		t.Fatal(err)
	}
	conn, err := vm.Dial(t.Context(), 4000)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "hello"); err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(conn); err != nil || string(text) != "HELLO" {
		t.Errorf("%q, %v", text, err)
	}
	if err := server.Wait(); err != nil {
		t.Error(err)
	}
	if conn, err := vm.Dial(t.Context(), 4001); err == nil {
		conn.Close()
		t.Error("a port where nobody listens was connected to")
	}
	listener, err := vm.Listen(t.Context(), 5000)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	heard := make(chan string, 1)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			heard <- err.Error()
			return
		}
		defer conn.Close()
		text, _ := io.ReadAll(conn)
		heard <- string(text)
	}()
	sh(t, vm, `python3 -c 'import socket; s = socket.socket(socket.AF_VSOCK); s.connect((2, 5000)); s.sendall(b"to the host"); s.close()'`)
	if got := <-heard; got != "to the host" {
		t.Errorf("the host heard %q", got)
	}
}
