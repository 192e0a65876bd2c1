//go:build linux

package guest_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tangle-network/microvm-runtime/guest"
	"github.com/tangle-network/microvm-runtime/guest/guesttest"
	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// driverHelper makes the test's program a driver: it names the agent's socket and a file for output.
const driverHelper = "MICROVM_TEST_DRIVER"

func TestMain(m *testing.M) {
	if args := os.Getenv(driverHelper); args != "" {
		socket, file, _ := strings.Cut(args, " ")
		fmt.Println(drive(socket, file))
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// socket is an agent of another process.
type socket string

func (s socket) Dial(ctx context.Context, _ uint32) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "unix", string(s))
}

const numbers = "i=0; while [ $i -lt 100000 ]; do echo $i; i=$((i+1)); done; exit 5"

// drive runs a command into a file until somebody kills this process.
func drive(path, file string) error {
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	c := guest.Command(socket(path), "sh", "-c", numbers)
	c.ID, c.Stdout = "survivor", out
	return c.Run(context.Background())
}

func TestACommandSurvivesItsDriver(t *testing.T) {
	a := guesttest.New(t)
	listener, err := net.Listen("unix", filepath.Join(t.TempDir(), "forwarded"))
	if err != nil {
		t.Fatal(err)
	}
	forwarded := forward(listener, a)
	defer func() {
		listener.Close()
		<-forwarded
	}()
	file := filepath.Join(t.TempDir(), "out")
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), driverHelper+"="+listener.Addr().String()+" "+file)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for begin := time.Now(); ; time.Sleep(time.Millisecond) {
		if info, err := os.Stat(file); err == nil && info.Size() > 1000 {
			break
		}
		if time.Since(begin) > 20*time.Second {
			cmd.Process.Kill()
			cmd.Wait()
			t.Fatalf("the driver has nothing: %s", &said)
		}
	}
	cmd.Process.Kill()
	cmd.Wait()
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var rest bytes.Buffer
	c := guest.Attach(a, "survivor")
	c.From, c.Stdout = &guest.Offsets{Stdout: uint64(len(got))}, &rest
	err = within(t, func() error { return c.Run(t.Context()) })
	if c.Exit == nil || c.Exit.Code != 5 {
		t.Errorf("exit %+v, error %v", c.Exit, err)
	}
	var want strings.Builder
	for i := range 100_000 {
		want.WriteString(strconv.Itoa(i) + "\n")
	}
	if string(got)+rest.String() != want.String() {
		t.Errorf("%d and %d bytes came, want %d", len(got), rest.Len(), want.Len())
	}
	if end := c.Offsets(); end.Stdout != uint64(want.Len()) {
		t.Errorf("the end is at %+v", end)
	}
}

// forward passes connections on to an agent, until the listener is closed.
func forward(listener net.Listener, a *guesttest.Agent) (done chan struct{}) {
	done = make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			to, err := a.Dial(context.Background(), wire.Port)
			if err != nil {
				conn.Close()
				continue
			}
			for _, pair := range [][2]net.Conn{{conn, to}, {to, conn}} {
				go func() {
					buffer := make([]byte, 4<<10)
					for {
						n, err := pair[0].Read(buffer)
						if _, failed := pair[1].Write(buffer[:n]); err != nil || failed != nil {
							conn.Close()
							to.Close()
							return
						}
					}
				}()
			}
		}
	}()
	return done
}
