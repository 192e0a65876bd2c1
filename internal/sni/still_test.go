//go:build linux

package sni_test

import (
	"bufio"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/sni"
)

// stillVariable makes a test's program one whose gate stands still.
const stillVariable = "MICROVM_TEST_STILL"

// TestAHostThatStoodStill for longer than a connection may be idle has let nothing move: that ends none.
func TestAHostThatStoodStill(t *testing.T) {
	const idle = 4 * time.Second
	if os.Getenv(stillVariable) != "" {
		outlives(t, idle)
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestAHostThatStoodStill$", "-test.v")
	cmd.Env = append(os.Environ(), stillVariable+"=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	said := bufio.NewReader(out)
	for line := ""; !strings.Contains(line, "ready"); {
		if line, err = said.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	cmd.Process.Signal(syscall.SIGSTOP)
	time.Sleep(idle + idle/8)
	io.WriteString(in, "go\n")
	cmd.Process.Signal(syscall.SIGCONT)
	rest, _ := io.ReadAll(said)
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v\n%s", err, rest)
	}
}

// outlives passes a byte through a connection before it is told to go on, and one after.
func outlives(t *testing.T, idle time.Duration) {
	server := serve(t, func(conn *net.TCPConn) { io.Copy(conn, conn) })
	client := startGate(t, server, func(o *sni.Options) { o.Idle = idle }).dial(t)
	hello := build(0, names(0, "good.example"))
	client.Write(hello)
	if _, err := io.ReadFull(client, make([]byte, len(hello))); err != nil {
		t.Fatal(err)
	}
	os.Stdout.WriteString("ready\n")
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	client.Write([]byte{1})
	if _, err := io.ReadFull(client, make([]byte, 1)); err != nil {
		t.Errorf("the connection: %v", err)
	}
}
